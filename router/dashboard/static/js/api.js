/**
 * Talking to the server. Owns the session's CSRF token; the account key passes through `signIn` and is not kept.
 *
 * Paths are below `/dashboard/api/`: `api.get("v1/keys", {query: {search: "user"}})`, `api.get("overview")`.
 */

const ROOT = "/dashboard/api/";
const SESSION = "/dashboard/session";

let session = null;
let signedOut = () => {};

/** What the server refused, or that it did not answer (`status` 0). `message` is a sentence for people. */
export class ApiError extends Error {
  /** @param {{status: number, code?: string, message: string, hint?: string, field?: string, requestId?: string, retryAfter?: number}} what */
  constructor({ status, code = "", message, hint = "", field = "", requestId = "", retryAfter = 0 }) {
    super(message);
    this.name = "ApiError";
    Object.assign(this, { status, code, hint, field, requestId, retryAfter });
  }
}

/** The live session: `{csrf, account: {id, name}, expires_at, version}`, or null. */
export function currentSession() {
  return session;
}

/** Whom to tell when the session has ended, whoever ended it. @param {() => void} listener */
export function whenSignedOut(listener) {
  signedOut = listener;
}

/** Sign in with an account key. @param {string} key @throws {ApiError} */
export async function signIn(key) {
  session = await parse(await send(SESSION, "POST", { body: { key } }));
  return session;
}

/** The session that a reload left behind, or null. */
export async function resume() {
  const response = await send(SESSION, "GET", {});
  if (response.status === 204) return null;
  session = await parse(response);
  return session;
}

/** End the session here and at the server. */
export async function signOut() {
  const ending = send(SESSION, "DELETE", {});
  session = null;
  await ending.catch(() => {});
}

/**
 * @typedef {Object} Options
 * @property {*} [body] an object is sent as JSON; a string, Blob or File as it is
 * @property {string} [type] the content type of a body that is no object
 * @property {Object<string, *>} [query] null, undefined and "" are left out
 * @property {string} [vault] `vault_3`: act on this vault of the account
 * @property {Object<string, string>} [headers]
 * @property {AbortSignal} [signal]
 * @property {"json"|"text"|"blob"} [as] how to read the answer; JSON unless given
 */

/**
 * One request; the parsed answer with its headers.
 * @param {string} method
 * @param {string} path below `/dashboard/api/`
 * @param {Options} [options]
 * @returns {Promise<{data: *, headers: Headers, status: number}>}
 * @throws {ApiError}
 */
export async function request(method, path, options = {}) {
  const response = await send(urlOf(path, options.query), method, options);
  if (response.status === 401) await checkSession();
  const data = await parse(response, options.as);
  return { data, headers: response.headers, status: response.status };
}

const asking = (method) => async (path, options) => (await request(method, path, options)).data;

/** `api.get(path, options)` and so on: the parsed answer, or an `ApiError`. */
export const api = {
  get: asking("GET"),
  post: asking("POST"),
  put: asking("PUT"),
  patch: asking("PATCH"),
  delete: asking("DELETE"),
  stream,
  upload,
};

/**
 * A request whose answer comes as server-sent events.
 * @param {string} path
 * @param {Options & {method?: string}} [options]
 * @returns {Promise<{headers: Headers, status: number, events: AsyncGenerator<{event: string, data: string}>}>}
 * @throws {ApiError} before the first event; while it streams, the generator throws
 */
async function stream(path, options = {}) {
  const response = await send(urlOf(path, options.query), options.method ?? "POST", options);
  if (response.status === 401) await checkSession();
  if (!response.ok) throw await errorOf(response);
  return { headers: response.headers, status: response.status, events: eventsOf(response) };
}

async function* eventsOf(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      text += value ?? "";
      const blocks = text.split(/\r\n\r\n|\n\n|\r\r/);
      text = done ? "" : blocks.pop();
      for (const block of blocks) {
        const event = readEvent(block);
        if (event) yield event;
      }
      if (done) return;
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function readEvent(block) {
  let event = "message";
  const data = [];
  for (const line of block.split(/\r\n|\n|\r/)) {
    if (line.startsWith("data:")) data.push(line.slice(5).replace(/^ /, ""));
    else if (line.startsWith("event:")) event = line.slice(6).trim();
  }
  return data.length ? { event, data: data.join("\n") } : null;
}

/**
 * Send a large body and tell how far it is.
 * @param {string} path
 * @param {Options & {method?: string, onProgress?: (sent: number, total: number) => void}} options
 * @returns {Promise<*>} the parsed answer
 * @throws {ApiError}
 */
function upload(path, options) {
  return new Promise((resolve, reject) => {
    const call = new XMLHttpRequest();
    call.open(options.method ?? "POST", urlOf(path, options.query));
    for (const [name, value] of headersOf(options)) call.setRequestHeader(name, value);
    call.upload.onprogress = (event) => options.onProgress?.(event.loaded, event.total);
    call.onerror = () => reject(unreachable());
    call.onabort = () => reject(new DOMException("Stopped.", "AbortError"));
    call.onload = async () => {
      const headers = { "X-Request-ID": call.getResponseHeader("X-Request-ID") ?? "" };
      const response = new Response(call.response, { status: call.status, headers });
      if (call.status === 401) await checkSession();
      parse(response).then(resolve, reject);
    };
    options.signal?.addEventListener("abort", () => call.abort());
    call.send(bodyOf(options));
  });
}

function urlOf(path, query) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== "") search.set(name, String(value));
  }
  const asked = search.toString();
  return ROOT + path.replace(/^\/+/, "") + (asked ? `?${asked}` : "");
}

function isPlain(body) {
  return typeof body === "string" || body instanceof Blob;
}

function bodyOf({ body }) {
  if (body === undefined || body === null) return undefined;
  return isPlain(body) ? body : JSON.stringify(body);
}

function headersOf({ body, type, vault, headers }) {
  const all = new Headers(headers);
  all.set("X-Dashboard", "1");
  if (session) all.set("X-CSRF-Token", session.csrf);
  if (vault) all.set("X-Dashboard-Vault", vault);
  if (body !== undefined && body !== null) all.set("Content-Type", isPlain(body) ? (type ?? "text/plain") : "application/json");
  return all;
}

async function send(url, method, options) {
  try {
    return await fetch(url, {
      method,
      headers: headersOf(options),
      body: bodyOf(options),
      signal: options.signal,
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw unreachable();
  }
}

function unreachable() {
  return new ApiError({ status: 0, code: "unreachable", message: "The server does not answer.", hint: "Is it running? This page tries again by itself where it can." });
}

async function parse(response, as = "json") {
  if (!response.ok) throw await errorOf(response);
  if (response.status === 204) return null;
  if (as !== "json") return response[as]();
  const text = await response.text();
  try {
    return text ? JSON.parse(text) : null;
  } catch {
    throw new ApiError({ status: response.status, code: "not_json", message: "The server's answer is not JSON." });
  }
}

/** An error in any of the shapes that the server speaks: its own, OpenAI's, Anthropic's, Google's. */
async function errorOf(response) {
  const body = await response.json().catch(() => ({}));
  const inner = typeof body?.error === "object" && body.error ? body.error : body;
  const said = typeof body?.error === "string" ? body.error : inner?.message;
  return new ApiError({
    status: response.status,
    code: String(body?.code ?? inner?.code ?? inner?.type ?? ""),
    message: said || `The server answers ${response.status}.`,
    hint: body?.hint ?? "",
    field: body?.field ?? "",
    requestId: response.headers.get("X-Request-ID") ?? "",
    retryAfter: Number(response.headers.get("Retry-After")) || 0,
  });
}

/** A 401 may be a provider's: only when the session itself is refused is it over. */
async function checkSession() {
  const response = await send(SESSION, "GET", {});
  if (response.status !== 204) return;
  const had = session !== null;
  session = null;
  if (had) signedOut();
}
