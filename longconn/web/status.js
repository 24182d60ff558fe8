// The connection's state in the head of the page.

import { $ } from "./elements.js";

const TEXTS = {
  idle: "Not connected",
  connecting: "Connecting…",
  connected: "Connected",
  waiting: "Reconnecting…",
  stopped: "Disconnected",
};
const STEADY = 400; // milliseconds that a state must last before it is shown

let countdown, textTimer;

export function drawStatus(connection) {
  const { state, reason, transportName } = connection;
  clearInterval(countdown);
  clearTimeout(textTimer);
  const isReconnecting = state === "connecting" && connection.attempts > 0;
  document.body.dataset.connection = isReconnecting ? "waiting" : state;
  const text = (isReconnecting ? TEXTS.waiting : TEXTS[state]) + (state === "stopped" && reason ? `: ${reason}` : "");
  // Screen readers read this region aloud at every change, so the same text is not written twice.
  textTimer = setTimeout(() => {
    if ($("status-text").textContent !== text) $("status-text").textContent = text;
  }, state === "connected" || state === "stopped" ? 0 : STEADY);
  $("status-transport").textContent = transportName;
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
