// Other ways into the open channel, to be copied.

import { at, defaultChannel, host, port } from "./address.js";
import { $, make } from "./elements.js";

const quoted = (text) => (/^[\w:/.%-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

const urlOf = (channel) => at(`channels/${encodeURIComponent(channel)}`);
const says = (channel) => `curl -d 'disk full' ${quoted(urlOf(channel))}`;
// Over https somebody stands before the server, who may not know chat lines.
const isOwnPort = location.protocol === "http:";

function ways(channel) {
  const url = urlOf(channel);
  const enters = channel === defaultChannel ? "" : `, then /join ${channel}`;
  return [
    ...(isOwnPort ? [[`Chat lines over TCP${enters}`, `nc ${host} ${port}`]] : []),
    ["Say something from a script", says(channel)],
    ["Read it as server-sent events", `curl -N ${quoted(`${url}/events`)}`],
    ["Read it as lines of JSON", `curl -N ${quoted(`${url}/stream`)}`],
    ["An SDK of Centrifugo, over WebSocket", at("connection/websocket", "ws")],
  ];
}

export function prepareWays(channel) {
  $("ways-open").addEventListener("click", () => {
    $("ways-list").replaceChildren(
      ...ways(channel()).flatMap(([what, how]) => [make("dt", "", what), make("dd", "", make("code", "", how))]),
    );
    $("ways").showModal();
  });
  $("ways-close").addEventListener("click", () => $("ways").close());
}

/** For a channel in which nothing was said yet. */
export const hint = (channel) => (isOwnPort && channel === defaultChannel ? `nc ${host} ${port}` : says(channel));
