// Elements of the page. What others say gets into them as text, never as markup.

export const $ = (id) => document.getElementById(id);

/** An element with classes, and text or other elements in it. */
export function make(tag, classes = "", ...content) {
  const element = document.createElement(tag);
  if (classes) element.className = classes;
  element.append(...content);
  return element;
}

/** A name, by itself in the line's direction whatever it is written in. */
export const named = (name, classes) => make("bdi", classes, name);

/** A publication's data in words: text without the white space at its end, anything else as JSON. */
export const written = (data) => (typeof data === "string" ? data.trimEnd() : JSON.stringify(data));

// Nothing but the web, without the punctuation after it, but with a closing bracket of its own. Marks of direction would
// have it read as another address.
const NOT = String.raw`\s<>"，。；：！？、（）【】《》「」\u200e\u200f\u202a-\u202e\u2066-\u2069`;
const PART = String.raw`\([^()${NOT}]*\)`;
const LINK = new RegExp(String.raw`\bhttps?://(?:${PART}|[^()${NOT}])*(?:${PART}|[^${NOT}'.,:;!?()[\]{}])`, "gi");

/** A text, with links where addresses of the web are. */
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

/** The class of a name's colour: one name, one colour. */
export function hue(name) {
  let sum = 0;
  for (const each of name.toLowerCase()) sum = (sum * 31 + each.codePointAt(0)) >>> 0;
  return `hue-${sum % HUES}`;
}

/** The round sign before a name. */
export function sign(name) {
  const element = make("span", `sign ${hue(name)}`, [...name.replace(/^[^\p{L}\p{N}]+/u, "")][0]?.toUpperCase() ?? "·");
  element.setAttribute("aria-hidden", "true");
  return element;
}

let spoken;

/** Have a screen reader say something, a little later and the latest only: it is not to be talked over. */
export function tell(text) {
  const queue = (spoken ??= []);
  queue.push(text);
  if (queue.length > 1) return;
  setTimeout(() => {
    const more = queue.length - 3;
    $("told").textContent = `${more > 0 ? `${more} more. ` : ""}${queue.slice(-3).join(". ")}`;
    spoken = undefined;
  }, 700);
}
