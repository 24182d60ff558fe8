// The admin page: it asks the server API every five seconds, and shows what comes.

import { APIError, call, callAll, signedIn, signIn, signOut } from "./api.js";
import { $, make } from "./elements.js";
import { plot } from "./plots.js";
import { button, cell, short, size, span } from "./tables.js";

const PAUSE = 5000;
const SHOWN = 50;
/** Bytes that wait for one client from which it is marked as slow. */
const SLOW = 65536;

let timer;
let asking = false;
let again = false;
// Publications of the channels at the time before, to tell their rate.
let before = { time: 0, counts: new Map() };

function show(signing) {
  $("signin").hidden = !signing;
  $("overview").hidden = signing;
  $("out").hidden = signing;
  if (signing) {
    clearTimeout(timer);
    state("");
    $("node").textContent = "";
    $("key").focus();
  }
}

function state(text, good = true) {
  $("state").textContent = text;
  $("state").className = `state ${good ? "good" : "bad"}`;
}

function done(text) {
  $("done").textContent = text;
  setTimeout(() => $("done").textContent === text && $("done").replaceChildren(), 6000);
}

async function refresh() {
  clearTimeout(timer);
  if (asking) {
    again = true;
    return;
  }
  asking = true;
  try {
    const [info, recent, clients, channels] = await callAll([
      { info: {} },
      { recent: {} },
      { clients: { match: $("clients-match").value.trim(), order: $("clients-order").value, limit: SHOWN } },
      { channels: { pattern: $("channels-match").value.trim(), order: $("channels-order").value, limit: SHOWN } },
    ]);
    if (!signedIn()) return;
    show(false);
    state(`as of ${new Date().toLocaleTimeString()}`);
    if (info) showNodes(info.nodes);
    if (recent) plot($("plots"), recent);
    showClients(clients);
    showChannels(channels);
  } catch (error) {
    failed(error);
  } finally {
    asking = false;
  }
  if (again) {
    again = false;
    refresh();
  } else if (signedIn() && !document.hidden) {
    timer = setTimeout(refresh, PAUSE);
  }
}

function failed(error) {
  if (!(error instanceof APIError)) throw error;
  if ([401, 404, 429].includes(error.status)) {
    signOut();
    show(true);
    $("signin-error").textContent = error.message;
  } else {
    state(error.message, false);
  }
}

function showNodes(nodes) {
  const [first] = nodes;
  $("node").textContent = `${first.version}, up ${span(first.uptime)}, ${first.num_users} users, ${first.num_subs} subscriptions`;
  $("nodes-section").hidden = nodes.length < 2;
  fill("nodes", nodes, (node) => [
    cell("Node", node.name), cell("Version", node.version), cell("Clients", node.num_clients, "number"),
    cell("Subscriptions", node.num_subs, "number"), cell("Up", span(node.uptime), "number"),
  ], "");
}

function showClients(found) {
  if (!found) return fill("clients", [], null, "The search was refused.");
  $("clients-count").textContent = counted(found.num_clients, found.clients.length);
  fill("clients", found.clients, (client) => {
    const more = client.num_channels - client.channels.length;
    const channels = client.channels.join(", ") + (more > 0 ? `, and ${more} more` : "");
    return [
      cell("Name", client.name), cell("User", client.user), cell("Address", client.address), cell("By", client.protocol),
      cell("Here for", span(client.age), "number"),
      cell("Waiting", client.queued ? size(client.queued) : "", `number${client.queued >= SLOW ? " slow" : ""}`),
      cell("Channels", channels),
      cell("", [button("Disconnect …", () => disconnect(client), `Disconnect ${client.name} …`)], "buttons"),
    ];
  }, "No client.");
}

function showChannels(found) {
  if (!found) return fill("channels", [], null, "The pattern was refused.");
  const now = performance.now();
  const seconds = (now - before.time) / 1000;
  const counts = new Map(found.channels.map((each) => [each.name, each.num_publications]));
  $("channels-count").textContent = counted(found.num_channels, found.channels.length);
  fill("channels", found.channels, (channel) => {
    const known = before.counts.get(channel.name);
    const rate = known === undefined || seconds > 60 ? "" : short(Math.max(0, Math.round((channel.num_publications - known) / seconds * 10) / 10));
    return [
      cell("Channel", channel.name), cell("Clients", channel.num_clients, "number"), cell("Publications/s", rate, "number"),
      cell("", [
        button("History", () => showHistory(channel.name), `History of ${channel.name}`), " ",
        button("Publish …", () => prepare("publish-channel", channel.name, "publish-data"), `Publish in ${channel.name} …`),
      ], "buttons"),
    ];
  }, "No channel with subscribers.");
  before = { time: now, counts };
}

const counted = (all, shown) => (all > shown ? `${shown} of ${all}` : String(all));

/** Fill a table, and keep the focus on the button that has it. */
function fill(id, items, cells, none) {
  const body = $(id);
  const focused = body.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  const rows = items.map((each) => make("tr", "", ...cells(each)));
  if (!rows.length) {
    const empty = make("td", "none", none);
    empty.colSpan = 8;
    rows.push(make("tr", "", empty));
  }
  body.replaceChildren(...rows);
  if (focused) [...body.querySelectorAll("button")].find((each) => each.getAttribute("aria-label") === focused)?.focus();
}

function prepare(id, value, next) {
  $(id).value = value;
  $(next).focus();
}

// Actions: each is asked for once more.

let settle = () => {};

function confirmed(text, yes) {
  settle(false);
  $("confirm-text").textContent = text;
  $("confirm-yes").textContent = yes;
  $("confirm").showModal();
  return new Promise((resolve) => (settle = resolve));
}

// The dialog's own `close` comes later: it might end the question after this one.
$("confirm").addEventListener("submit", (event) => settle(event.submitter.value === "yes"));
$("confirm").addEventListener("cancel", () => settle(false));

async function act(question, yes, method, body, said) {
  if (!(await confirmed(question, yes))) return false;
  try {
    const result = await call(method, body);
    done(said(result));
    refresh();
    return true;
  } catch (error) {
    if (error instanceof APIError && error.status === 200) done(`Refused: ${error.message}`);
    else failed(error);
    return false;
  }
}

function disconnect({ client, user, name, address }) {
  return act(`Disconnect ${name} (${address})? It is told not to come back.`, "Disconnect", "disconnect", { client, user }, () => `${name} is disconnected.`);
}

async function showHistory(channel) {
  $("history-title").textContent = `The last publications in ${channel}`;
  try {
    const found = await call("history", { channel, limit: 100, reverse: true });
    $("history-list").replaceChildren(...found.publications.map(publication));
    if (!found.publications.length) $("history-list").append(make("li", "mute", "Nothing is kept."));
    $("history").showModal();
  } catch (error) {
    if (error instanceof APIError && error.status === 200) done(`No history: ${error.message}`);
    else failed(error);
  }
}

function publication({ offset, time, data, info }) {
  const from = info?.user || info?.client || "";
  const when = time ? new Date(time).toLocaleTimeString() : "";
  return make("li", "", make("div", "mute", [`#${offset}`, when, from].filter(Boolean).join("  ")), make("pre", "", typeof data === "string" ? data : JSON.stringify(data)));
}

/** Submit a form by `send`, and empty it when that is done. */
function form(id, send) {
  $(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    if (await send((field) => $(`${id}-${field}`).value.trim())) event.target.reset();
  });
}

form("publish", (value) => {
  let data;
  try {
    data = JSON.parse(value("data"));
  } catch {
    data = value("data");
  }
  const channel = value("channel");
  return act(`Publish in ${channel}?`, "Publish", "publish", { channel, data }, ({ offset }) => `Published in ${channel}, number ${offset}.`);
});

form("revoke", (value) => {
  const [user, token_id] = [value("user"), value("token")];
  if (!user === !token_id) {
    done("Give either a user or a token id.");
    return false;
  }
  const what = user ? `all tokens of ${user}` : `the token ${token_id}`;
  return act(`Revoke ${what}?`, "Revoke", "revoke", user ? { user, issued_before: Math.floor(Date.now() / 1000) + 1 } : { token_id }, ({ num_clients }) => `Revoked ${what}; ${num_clients} clients are disconnected.`);
});

form("unsubscribe", (value) => {
  const [user, channel] = [value("user"), value("channel")];
  return act(`Unsubscribe ${user} from ${channel}?`, "Unsubscribe", "unsubscribe", { user, channel }, () => `${user} is unsubscribed from ${channel}.`);
});

form("disconnect", (value) => {
  const user = value("user");
  return act(`Disconnect all connections of ${user}?`, "Disconnect", "disconnect", { user }, () => `${user} is disconnected.`);
});

// The start.

$("signin-form").addEventListener("submit", (event) => {
  event.preventDefault();
  $("signin-error").replaceChildren();
  signIn($("key").value.trim(), $("user").value.trim(), $("password").value);
  event.target.reset();
  refresh();
});

$("out").addEventListener("click", () => {
  signOut();
  show(true);
});

for (const id of ["clients-match", "channels-match"]) {
  let typing;
  $(id).addEventListener("input", () => {
    clearTimeout(typing);
    typing = setTimeout(refresh, 300);
  });
}
for (const id of ["clients-order", "channels-order"]) $(id).addEventListener("change", refresh);
document.addEventListener("visibilitychange", () => !document.hidden && signedIn() && refresh());

if (signedIn()) refresh();
else show(true);
