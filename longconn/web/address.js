// URLs of the server, relative to the page, so that the page works at any depth of a site.

const base = new URL(".", location.href);

/** The URL of a path of the server. The scheme "ws" becomes "wss" on a page that was loaded over https. */
export function at(path, scheme) {
  const url = new URL(path, base);
  if (scheme) url.protocol = base.protocol.replace("http", scheme);
  return url.href;
}

export const host = location.hostname.replace(/^\[|\]$/g, "");
export const port = location.port || (location.protocol === "https:" ? "443" : "80");
export const defaultChannel = document.body.dataset.channel;

/** The URL fragment of a channel. `channelOf` is its inverse, and returns "" for no channel. */
export function fragment(channel) {
  return `#${encodeURIComponent(channel).replace(/%(3A|2F|40|2C)/g, decodeURIComponent)}`;
}

export function channelOf(hash) {
  const written = hash.replace(/^#/, "");
  try {
    return decodeURIComponent(written);
  } catch {
    return written;
  }
}

/** Values kept in localStorage, by server. `get` returns null where the browser forbids storage. */
export const memory = {
  get(key) {
    try {
      return JSON.parse(localStorage.getItem(`longconn ${base.pathname} ${key}`));
    } catch {
      return null;
    }
  },
  set(key, value) {
    try {
      localStorage.setItem(`longconn ${base.pathname} ${key}`, JSON.stringify(value));
    } catch {
      // Storage is full or forbidden.
    }
  },
};

/**
 * By this secret the server gives a tab its name back while it takes the tab's old connection for open. A reload keeps it;
 * a duplicate of the tab has one of its own, because it is stored only while the page is left.
 */
export const tabSecret = takeSecret() ?? newSecret();

function newSecret() {
  // crypto.randomUUID exists on https alone.
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (each) => each.toString(16).padStart(2, "0")).join("");
}

function takeSecret() {
  try {
    const found = sessionStorage.getItem("longconn resume");
    sessionStorage.removeItem("longconn resume");
    addEventListener("pagehide", () => sessionStorage.setItem("longconn resume", tabSecret));
    addEventListener("pageshow", () => sessionStorage.removeItem("longconn resume"));
    return found;
  } catch {
    return null; // storage is forbidden
  }
}
