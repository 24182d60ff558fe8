// Commands and URLs that reach the open channel from elsewhere, to be copied.

import { at, defaultChannel, host, port } from "./address.js";
import { $, make } from "./elements.js";

const quoted = (text) => (/^[\w:/.%-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`);

const urlOf = (channel) => at(`channels/${encodeURIComponent(channel)}`);
const publishCommand = (channel) => `curl -d 'disk full' ${quoted(urlOf(channel))}`;
// On a page over https a proxy stands in front of the server. It may not pass chat lines on.
const isOwnPort = location.protocol === "http:";

function hints(channel) {
  const url = urlOf(channel);
  const join = channel === defaultChannel ? "" : `, then /join ${channel}`;
  return [
    ...(isOwnPort ? [[`Chat lines over TCP${join}`, `nc ${host} ${port}`]] : []),
    ["Say something from a script", publishCommand(channel)],
    ["Read it as server-sent events", `curl -N ${quoted(`${url}/events`)}`],
    ["Read it as lines of JSON", `curl -N ${quoted(`${url}/stream`)}`],
    ["An SDK of Centrifugo, over WebSocket", at("connection/websocket", "ws")],
  ];
}

export function prepareConnectHints(channel) {
  $("hints-open").addEventListener("click", () => {
    $("hints-list").replaceChildren(
      ...hints(channel()).flatMap(([label, text]) => [make("dt", "", label), make("dd", "", make("code", "", text))]),
    );
    $("hints").showModal();
  });
  $("hints-close").addEventListener("click", () => $("hints").close());
}

/** The command that an empty channel shows. */
export const hintFor = (channel) => (
  isOwnPort && channel === defaultChannel ? `nc ${host} ${port}` : publishCommand(channel)
);
