// Small plots of the last 15 minutes: one number now, a line, its largest value.

import { make } from "./elements.js";
import { draw, short, size } from "./tables.js";

const PLOTS = [
  ["clients", "Clients", short],
  ["publications", "Publications a second", short],
  ["deliveries", "Deliveries a second", short],
  ["queued", "Bytes waiting", size],
  ["lag", "Reactor lag", (seconds) => `${short(Math.round(seconds * 10000) / 10)} ms`],
];
const WIDTH = 300;
const HEIGHT = 60;
const SAMPLES = 180;

/** Draw the columns of `recent` into `place`. */
export function plot(place, recent) {
  place.replaceChildren(...PLOTS.map(([column, title, text]) => one(title, recent[column] ?? [], text, recent.interval)));
}

function one(title, values, text, interval) {
  const largest = Math.max(0, ...values);
  const now = values.length ? text(values.at(-1)) : "–";
  const image = draw("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" });
  image.setAttribute("aria-label", values.length ? `${title}: now ${now}, at most ${text(largest)}` : `${title}: no numbers yet`);
  image.append(draw("line", { class: "base", x1: 0, x2: WIDTH, y1: HEIGHT, y2: HEIGHT }));
  if (values.length > 1) {
    const start = SAMPLES - values.length;
    const points = values.map((value, index) => {
      const x = ((start + index) / (SAMPLES - 1)) * WIDTH;
      return `${x.toFixed(1)},${(HEIGHT - (largest ? value / largest : 0) * (HEIGHT - 4)).toFixed(1)}`;
    });
    const first = points[0].split(",")[0];
    image.append(draw("polygon", { class: "area", points: `${first},${HEIGHT} ${points.join(" ")} ${WIDTH},${HEIGHT}` }));
    image.append(draw("polyline", { class: "line", points: points.join(" ") }));
  }
  const minutes = Math.round((SAMPLES * interval) / 60);
  const ends = make("div", "ends", make("span", "", `${minutes} min ago`), make("span", "", `at most ${values.length ? text(largest) : "–"}`));
  return make("figure", "plot", make("figcaption", "mute", title), make("div", "now", now), image, ends);
}
