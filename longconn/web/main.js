// The page: channels that it is in, the one that is open, and what changes them.

import { channelOf, defaultChannel, fragment, memory } from "./address.js";
import { Composer } from "./composer.js";
import { Connection } from "./connection.js";
import { $, tell, written } from "./elements.js";
import { Messages } from "./messages.js";
import { Naming } from "./naming.js";
import { Room } from "./room.js";
import { drawChannels, drawPeople, preparePanels, showPanel } from "./sides.js";
import { drawState } from "./state.js";
import { hint, prepareWays } from "./ways.js";

const MOST_CHANNELS = 100; // remembered
const RECOUNT = 30000; // milliseconds; many comings and goings at once are not told one by one

const rooms = new Map(); // by channel, in the order of the list
let open = null;

const connection = new Connection({
  state() {
    if (connection.state !== "connected") for (const each of rooms.values()) each.away();
    drawState(connection);
    naming.show();
  },
  connected() {
    naming.connected();
    composer.connected();
    for (const each of rooms.values()) each.enter();
  },
  push(push) {
    if (push.subscribe) {
      if (!rooms.has(push.channel)) add(push.channel).arrive(push.subscribe, false);
    } else rooms.get(push.channel)?.push(push);
  },
  refused: (error) => naming.refused(error),
});
const naming = new Naming(connection);
const messages = new Messages();
const composer = new Composer(connection);

// Channels.

const roomEvents = {
  changed(room) {
    if (room === open) messages.update();
    drawSides();
  },
  entered(room) {
    if (room === open) room.fetchPresence();
  },
  said(room, item, isLive) {
    if (item.own) return;
    if (room !== open || document.hidden) room.unread += 1;
    if (room === open && isLive) tell(`${item.name}: ${written(item.data).slice(0, 300)}`);
  },
};

let drawsSides = false;

function drawSides() {
  if (drawsSides) return;
  drawsSides = true;
  setTimeout(drawSidesNow, 50);
}

function drawSidesNow() {
  drawsSides = false;
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
  drawSides();
  return room;
}

/** Open a channel, and enter it if we are not there; none for "". */
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
  $("hint").textContent = hint(channel);
  if (open?.entered) open.fetchPresence();
  messages.open(open);
  composer.open(open);
  drawSidesNow(); // a panel that is opened next goes to the current one
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
  drawSidesNow();
  ($("channel-list").querySelector("a[aria-current]") ?? $("join-channel")).focus();
}

addEventListener("hashchange", () => {
  const channel = channelOf(location.hash);
  if (channel) show(channel);
  showPanel("");
  composer.invite();
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
  if (open?.channel !== channel) show(channel); // it stood there already
  showPanel("");
  $("text").focus();
});

document.addEventListener("visibilitychange", () => {
  if (document.hidden || !open) return;
  open.unread = 0;
  open.entered && open.fetchPresence();
  drawSides();
});
setInterval(() => open?.entered && !document.hidden && open.fetchPresence(), RECOUNT);

$("skip").addEventListener("click", () => $("text").focus());
$("again").addEventListener("click", () => connection.now());

// Start.

preparePanels();
prepareWays(() => open?.channel ?? defaultChannel);
const remembered = memory.get("channels");
if (Array.isArray(remembered)) for (const each of remembered) if (typeof each === "string" && each) add(each);
const first = channelOf(location.hash) || memory.get("open") || defaultChannel;
history.replaceState(null, "", fragment(first));
show(first);
drawState(connection);
naming.show();
composer.invite();
naming.start();
