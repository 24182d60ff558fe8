// The first page's demonstration. Relative to the page, so that it works at any depth of a site;
// what others say gets into the page as text only.

const base = new URL(".", location.href);
const http = base.href.replace(/\/$/, "");
const ws = http.replace(/^http/, "ws");
const port = location.port || (location.protocol === "https:" ? "443" : "80");
const shown = { http, ws, nc: `${location.hostname.replace(/^\[|\]$/g, "")} ${port}` };
for (const each of document.querySelectorAll("[data-is]")) each.textContent = shown[each.dataset.is];

const $ = (id) => document.getElementById(id);
const LINES = 200;

function show(log, text) {
  const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 4;
  const item = document.createElement("li");
  item.textContent = text;
  log.append(item);
  while (log.childElementCount > LINES) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
}

function state(element, text) {
  element.textContent = text;
  element.classList.toggle("open", text === "open");
}

let socket, events, again;
let entered = 0;

const channel = () => $("channel").value || $("channel").defaultValue;
const path = () => `${http}/channels/${encodeURIComponent(channel())}`;

function connectSocket(round) {
  if (round !== entered) return;
  state($("ws-state"), "connecting");
  const mine = (socket = new WebSocket(`${ws}/ws?channel=${encodeURIComponent(channel())}`));
  mine.onopen = () => state($("ws-state"), "open");
  mine.onmessage = (message) => show($("ws-log"), message.data);
  mine.onclose = (event) => {
    if (round !== entered) return;
    state($("ws-state"), `closed (${event.code})`);
    again = setTimeout(connectSocket, 1000 + 2000 * Math.random(), round);
  };
}

function connectEvents() {
  state($("sse-state"), "connecting");
  const log = $("sse-log");
  events = new EventSource(`${path()}/events`);
  events.onopen = () => state($("sse-state"), "open");
  events.onerror = () => state($("sse-state"), events.readyState === EventSource.CLOSED ? "closed" : "connecting");
  const parsed = (write) => (event) => show(log, write(JSON.parse(event.data)));
  const said = (data) => (typeof data === "string" ? data : JSON.stringify(data));
  events.onmessage = parsed((each) => `${each.offset} ${each.name}: ${said(each.data)}`);
  const who = (each) => each.name ?? each.count;
  events.addEventListener("join", parsed((each) => `+ ${who(each)}`));
  events.addEventListener("leave", parsed((each) => `- ${who(each)}`));
  events.addEventListener("unrecovered", parsed(() => "(some was missed and is not kept)"));
  events.addEventListener("disconnect", parsed((each) => `(disconnected: ${each.reason})`));
}

function enter() {
  entered += 1;
  clearTimeout(again);
  socket?.close();
  events?.close();
  connectSocket(entered);
  connectEvents();
}

$("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  enter();
});

$("say").addEventListener("submit", (event) => {
  event.preventDefault();
  if ($("text").value && socket.readyState === WebSocket.OPEN) {
    socket.send($("text").value);
    $("text").value = "";
  }
});

$("post").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (!$("body").value) return;
  try {
    const answer = await fetch(path(), { method: "POST", body: $("body").value });
    if (answer.ok) $("body").value = "";
    else show($("sse-log"), `(${(await answer.json()).error.message})`);
  } catch (error) {
    show($("sse-log"), `(${error})`);
  }
});

enter();
