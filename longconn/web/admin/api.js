// The server API, with the credentials of this tab. They stay in the tab: nothing of them is in an address or a cookie.

const STORED = "longconn-admin";

let headers = JSON.parse(sessionStorage.getItem(STORED) ?? "null");

export const signedIn = () => headers !== null;

/** Use an API key, or the login of an operator, for all calls from now on. */
export function signIn(key, user, password) {
  const bytes = new TextEncoder().encode(`${user}:${password}`);
  headers = key ? { "X-API-Key": key } : { Authorization: `Basic ${btoa(String.fromCharCode(...bytes))}` };
  sessionStorage.setItem(STORED, JSON.stringify(headers));
}

export function signOut() {
  headers = null;
  sessionStorage.removeItem(STORED);
}

/** An error whose message is for people; `status` is that of HTTP, 0 without an answer. */
export class APIError extends Error {
  constructor(message, status = 200) {
    super(message);
    this.status = status;
  }
}

const MEANINGS = {
  401: "This key or password is not right.",
  404: "The server API is off: give the server an API key (--api-key) or an operator (--admin-user).",
  429: "Too many wrong guesses: wait a minute.",
};

async function post(method, body) {
  let response;
  try {
    response = await fetch(`api/${method}`, { method: "POST", credentials: "omit", headers, body: JSON.stringify(body) });
  } catch {
    throw new APIError("The server does not answer.", 0);
  }
  if (!response.ok) throw new APIError(MEANINGS[response.status] ?? `The server answered ${response.status}.`, response.status);
  return response.json();
}

/** The result of one command. */
export async function call(method, body) {
  const answer = await post(method, body);
  if (answer.error) throw new APIError(`${answer.error.message} (${answer.error.code})`);
  return answer.result;
}

/** The results of several commands, in their order; null for one that was refused. */
export async function callAll(commands) {
  const answer = await post("batch", { commands, parallel: true });
  return answer.replies.map((each) => (each.error ? null : Object.values(each)[0]));
}
