// How the connection is, in words.

import { $ } from "./elements.js";

const WORDS = {
  idle: "Not connected",
  connecting: "Connecting…",
  connected: "Connected",
  waiting: "Reconnecting…",
  stopped: "Disconnected",
};
const STEADY = 400; // milliseconds for which a change has to last to be told

let countdown, soon;

export function drawState(connection) {
  const { state, reason, transportName } = connection;
  clearInterval(countdown);
  clearTimeout(soon);
  const isComingBack = state === "connecting" && connection.attempts > 0;
  document.body.dataset.connection = isComingBack ? "waiting" : state;
  const text = (isComingBack ? WORDS.waiting : WORDS[state]) + (state === "stopped" && reason ? `: ${reason}` : "");
  // A region that is read aloud: the same words are not written again.
  soon = setTimeout(() => {
    if ($("state-text").textContent !== text) $("state-text").textContent = text;
  }, state === "connected" || state === "stopped" ? 0 : STEADY);
  $("state-way").textContent = transportName;
  $("again").hidden = state !== "stopped" && state !== "waiting";
  $("again-in").textContent = "";
  if (state !== "waiting") return;
  const count = () => {
    const seconds = Math.ceil((connection.retryAt - Date.now()) / 1000);
    $("again-in").textContent = seconds > 1 ? ` (in ${seconds} s)` : "";
  };
  count();
  countdown = setInterval(count, 1000);
}
