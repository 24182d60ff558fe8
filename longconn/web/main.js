// The page's start, its channels, and the one that is open.

import { channelOf, defaultChannel, fragment, memory } from "./address.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { $, announce, written } from "./elements.js";
import { Messages } from "./messages.js";
import { Naming } from "./naming.js";
import { Room } from "./room.js";
import { drawChannels, drawPeople, preparePanels, showPanel } from "./panels.js";
import { SignIn } from "./signin.js";
import { drawStatus } from "./status.js";
import { hintFor, prepareConnectHints } from "./connect-hints.js";

const MOST_CHANNELS = 100; // remembered
const INVALID_TOKEN = 3500; // the disconnect of a client without credentials, or with wrong ones
const RECOUNT = 30000; // milliseconds between two presence requests: the server sums up joins and leaves of many

const rooms = new Map(); // by channel, in the order of the list
let open = null;

const connection = new Connection({
  state() {
    if (connection.state !== "connected") for (const each of rooms.values()) each.disconnected();
    drawStatus(connection);
    naming.show();
    if (connection.state === "stopped" && connection.code === INVALID_TOKEN) signIn.ask();
  },
  connected() {
    naming.connected();
    composer.connected();
    for (const each of rooms.values()) each.enter();
  },
  push(push) {
    if (push.subscribe) {
      if (!rooms.has(push.channel)) add(push.channel).subscribed(push.subscribe, false);
    } else rooms.get(push.channel)?.push(push);
  },
  refused: (error) => naming.refused(error),
});
const naming = new Naming(connection);
const signIn = new SignIn(connection);
const messages = new Messages();
const composer = new Composer(connection);

// Channels.

const roomEvents = {
  changed(room) {
    if (room === open) messages.update();
    drawPanels();
  },
  entered(room) {
    if (room === open) room.fetchPresence();
  },
  said(room, item, isLive) {
    if (item.own) return;
    if (room !== open || document.hidden) room.unread += 1;
    if (room === open && isLive) announce(`${item.name}: ${written(item.data).slice(0, 300)}`);
  },
};

let isDrawPending = false;

function drawPanels() {
  if (isDrawPending) return;
  isDrawPending = true;
  setTimeout(drawPanelsNow, 50);
}

function drawPanelsNow() {
  isDrawPending = false;
  drawChannels(rooms, open, leave);
  drawPeople(open, connection);
  $("room-error").textContent = open?.error ?? "";
  const unread = [...rooms.values()].reduce((sum, each) => sum + each.unread, 0);
  document.title = `${unread ? `(${unread}) ` : ""}${open ? `#${open.channel} · ` : ""}longconn`;
}

function add(channel) {
  const room = new Room(channel, connection, roomEvents);
  rooms.set(channel, room);
  memory.set("channels", [...rooms.keys()].slice(-MOST_CHANNELS));
  drawPanels();
  return room;
}

/** Open a channel, and subscribe to it if the page has not; "" closes the open one. */
function show(channel) {
  if (channel && !rooms.has(channel)) {
    const room = add(channel);
    if (connection.state === "connected") room.enter();
  }
  open = rooms.get(channel) ?? null;
  if (open) {
    open.unread = 0;
    memory.set("open", channel);
  }
  $("title-mark").hidden = !open;
  $("title-text").textContent = open ? open.channel : "No channel is open";
  $("hint").textContent = hintFor(channel);
  if (open?.entered) open.fetchPresence();
  messages.open(open);
  composer.open(open);
  drawPanelsNow(); // so that a panel opened next focuses the current channel
}

function leave(room) {
  room.leave();
  rooms.delete(room.channel);
  memory.set("channels", [...rooms.keys()]);
  if (room === open) {
    const next = rooms.keys().next().value ?? "";
    history.replaceState(null, "", fragment(next));
    show(next);
  }
  drawPanelsNow();
  ($("channel-list").querySelector("a[aria-current]") ?? $("join-channel")).focus();
}

addEventListener("hashchange", () => {
  const channel = channelOf(location.hash);
  if (channel) show(channel);
  showPanel("");
  composer.focusField();
});

$("join").addEventListener("submit", (event) => {
  event.preventDefault();
  const channel = $("join-channel").value.trim().replace(/^#(?=.)/, "");
  const isBad = !channel || /[\s\p{Cc}]/u.test(channel) || new TextEncoder().encode(channel).length > 255;
  $("join-error").textContent = isBad ? "1 to 255 bytes, without white space" : "";
  $("join-channel").setAttribute("aria-invalid", String(isBad));
  if (isBad) return;
  $("join-channel").value = "";
  location.hash = fragment(channel);
  if (open?.channel !== channel) show(channel); // the fragment did not change, so there is no hashchange event
  showPanel("");
  $("text").focus();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden || !open) return;
  open.unread = 0;
  open.entered && open.fetchPresence();
  drawPanels();
});
setInterval(() => open?.entered && !document.hidden && open.fetchPresence(), RECOUNT);

$("skip").addEventListener("click", () => $("text").focus());
$("again").addEventListener("click", () => connection.reconnect());

// Start.

preparePanels();
prepareConnectHints(() => open?.channel ?? defaultChannel);
const remembered = memory.get("channels");
if (Array.isArray(remembered)) for (const each of remembered) if (typeof each === "string" && each) add(each);
const first = channelOf(location.hash) || memory.get("open") || defaultChannel;
history.replaceState(null, "", fragment(first));
show(first);
drawStatus(connection);
naming.show();
composer.focusField();
naming.start();
