// What tables and plots are made of, and numbers for people.

import { make } from "./elements.js";

const SVG = "http://www.w3.org/2000/svg";

/** An SVG element with attributes. */
export function draw(tag, attributes) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

/** A cell of a table; `label` names it on a narrow screen. */
export function cell(label, content, classes = "") {
  const element = make("td", classes, ...(Array.isArray(content) ? content : [make("bdi", "", String(content))]));
  element.dataset.label = label;
  if (content === "") element.replaceChildren();
  return element;
}

/** A button that calls `act`. */
export function button(text, act, label = text) {
  const element = make("button", "", text);
  element.type = "button";
  element.setAttribute("aria-label", label);
  element.addEventListener("click", act);
  return element;
}

const UNITS = ["", "k", "M", "G"];

/** A number with at most three digits, and k, M or G. */
export function short(value, base = 1000) {
  let power = 0;
  while (value >= base && power < UNITS.length - 1) [value, power] = [value / base, power + 1];
  return `${Number(value.toPrecision(3))}${UNITS[power]}`;
}

/** Bytes. */
export const size = (bytes) => (bytes < 1024 ? `${bytes} B` : `${short(bytes, 1024)}iB`.replace("kiB", "KiB"));

/** Seconds as 40 s, 12 min, 5 h or 3 d. */
export function span(seconds) {
  for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]]) if (seconds >= 2 * length) return `${Math.floor(seconds / length)} ${unit}`;
  return `${Math.floor(seconds)} s`;
}
