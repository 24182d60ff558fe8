// The panels beside the messages: the list of channels on the left, the list of people on the right. On a narrow screen
// a panel opens over the messages.

import { fragment } from "./address.js";
import { $, make, named, sign } from "./elements.js";

const MOST_PEOPLE = 200; // names that are listed
const PANELS = ["channels", "people"];
const narrow = { channels: matchMedia("(max-width: 46rem)"), people: matchMedia("(max-width: 64rem)") };

const drawn = new WeakMap(); // the list's elements of each room

/** Draw the list of channels. The button beside a channel calls `leave(room)`. */
export function drawChannels(rooms, open, leave) {
  let current; // the link that has just become the current one
  const items = [...rooms.values()].map((room) => {
    if (!drawn.has(room)) drawn.set(room, entry(room, leave));
    const { item, link, unread } = drawn.get(room);
    link.classList.toggle("refused", Boolean(room.error));
    if (room !== open) link.removeAttribute("aria-current");
    else if (!link.hasAttribute("aria-current")) {
      link.setAttribute("aria-current", "page");
      current = link;
    }
    unread.hidden = !room.unread;
    unread.firstChild.data = room.unread > 99 ? "99+" : String(room.unread);
    return item;
  });
  const list = $("channel-list");
  // Replace the elements only if they changed: a link that is being clicked must stay.
  if (items.length !== list.childElementCount || items.some((each, index) => each !== list.children[index])) {
    list.replaceChildren(...items);
  }
  current?.scrollIntoView({ block: "nearest" });
}

function entry(room, leave) {
  const unread = make("span", "unread", "0", make("span", "sr", " unread"));
  const link = make("a", "", make("span", "mark", "#"), named(room.channel, "label"), unread);
  link.href = fragment(room.channel);
  const cross = make("button", "cross", "×");
  cross.type = "button";
  cross.setAttribute("aria-label", `Leave ${room.channel}`);
  cross.addEventListener("click", () => leave(room));
  return { item: make("li", "", link, cross), link, unread };
}

let shownPeople = "";

/** Sort order: names, then addresses, then ids. */
const rank = (name) => (name.endsWith("…") ? 2 : Number(name.includes(":")));
const { compare } = new Intl.Collator();

/** Draw the list of people, ourselves first. */
export function drawPeople(room, connection) {
  const present = room?.entered ? room.present : null;
  const own = connection.client;
  const people = [...(present ?? [])].sort(([a, one], [b, other]) => (
    (b === own) - (a === own) || rank(one) - rank(other) || compare(one, other)
  ));
  const key = JSON.stringify([own, room?.entered, present && people]);
  if (key === shownPeople) return;
  shownPeople = key;
  $("people-list").replaceChildren(
    ...people.slice(0, MOST_PEOPLE).map(([client, name]) => {
      const shown = client === own && name.endsWith("…") ? "you" : name;
      const item = make("li", "", sign(shown), named(shown, "label"));
      if (client === own && shown !== "you") item.append(make("span", "you", "you"));
      return item;
    }),
  );
  const more = people.length - MOST_PEOPLE;
  if (more > 0) $("people-list").append(make("li", "more", `and ${more} more`));
  const count = present ? String(people.length) : "";
  $("people-count").textContent = count;
  $("people-open").lastElementChild.textContent = count;
  $("people-open").setAttribute("aria-label", present ? `Who is here: ${count}` : "Who is here");
  $("people-none").hidden = !room?.entered || present !== null;
}

/** Open one of the panels over the messages; "" closes both. Does nothing where the panels stand beside them. */
export function showPanel(name) {
  const before = document.body.dataset.panel ?? "";
  const isOver = name !== "" && narrow[name].matches;
  document.body.dataset.panel = isOver ? name : "";
  for (const each of PANELS) {
    $(`${each}-open`).setAttribute("aria-expanded", String(isOver && each === name));
    // The keyboard reaches neither a closed panel nor anything behind an open one.
    $(each).inert = narrow[each].matches && !(isOver && each === name);
  }
  $("middle").inert = isOver;
  if (isOver) ($(name).querySelector("a[aria-current]") ?? $(`${name}-close`)).focus();
  else if (before) $(`${before}-open`).focus();
}

export function preparePanels() {
  for (const each of PANELS) {
    $(`${each}-open`).addEventListener("click", () => showPanel(each));
    $(`${each}-close`).addEventListener("click", () => showPanel(""));
    narrow[each].addEventListener("change", () => showPanel(""));
  }
  $("shade").addEventListener("click", () => showPanel(""));
  $("channel-list").addEventListener("keydown", (event) => {
    const step = { ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const links = [...$("channel-list").querySelectorAll("a")];
    links[links.findIndex((each) => each.parentElement.contains(event.target)) + step]?.focus();
  });
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.body.dataset.panel) showPanel("");
  });
  showPanel("");
}
