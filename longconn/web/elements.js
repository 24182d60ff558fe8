// DOM helpers. Text of other users enters the page as text nodes, never as markup.

export const $ = (id) => document.getElementById(id);

/** An element with classes, and text or other elements in it. */
export function make(tag, classes = "", ...content) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  element.append(...content);
  return element;
}

/** A name in a <bdi>, so that its writing direction does not affect the line. */
export const named = (name, classes) => make("bdi", classes, name);

/** A publication's data as text: a string without trailing white space, anything else as JSON. */
export const written = (data) => (typeof data === "string" ? data.trimEnd() : JSON.stringify(data));

// Links are http and https URLs. Punctuation after a URL is not part of it, but a balanced closing bracket is. Marks of
// writing direction end a URL: they would make it look like another one.
const NOT = String.raw`\s<>"，。；：！？、（）【】《》「」\u200e\u200f\u202a-\u202e\u2066-\u2069`;
const PART = String.raw`\([^()${NOT}]*\)`;
const LINK = new RegExp(String.raw`\bhttps?://(?:${PART}|[^()${NOT}])*(?:${PART}|[^${NOT}'.,:;!?()[\]{}])`, "gi");

/** A text in which URLs are links, as content for `make`. */
export function linked(text) {
  const content = [];
  let end = 0;
  for (const { 0: address, index } of text.matchAll(LINK)) {
    const link = make("a", "", address);
    Object.assign(link, { href: address, target: "_blank", rel: "noopener noreferrer" });
    content.push(text.slice(end, index), link);
    end = index + address.length;
  }
  return [...content, text.slice(end)];
}

const HUES = 8;

/** The class for a name's colour. A name always has the same colour. */
export function hue(name) {
  let sum = 0;
  for (const each of name.toLowerCase()) sum = (sum * 31 + each.codePointAt(0)) >>> 0;
  return `hue-${sum % HUES}`;
}

/** The round avatar before a name, with its first letter. */
export function sign(name) {
  const element = make("span", `sign ${hue(name)}`, [...name.replace(/^[^\p{L}\p{N}]+/u, "")][0]?.toUpperCase() ?? "·");
  element.setAttribute("aria-hidden", "true");
  return element;
}

let spoken;

/** Announce a text to screen readers. Texts within 700 ms are joined, and only the latest three are read out. */
export function announce(text) {
  const queue = (spoken ??= []);
  queue.push(text);
  if (queue.length > 1) return;
  setTimeout(() => {
    const more = queue.length - 3;
    $("announcements").textContent = `${more > 0 ? `${more} more. ` : ""}${queue.slice(-3).join(". ")}`;
    spoken = undefined;
  }, 700);
}
