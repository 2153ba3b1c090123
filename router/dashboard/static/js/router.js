/**
 * Which screen the address names, and going from one to the next without loading the page again.
 * Owns the signal of the screen that is shown: it aborts when another one takes its place.
 */

const BASE = "/dashboard";

/**
 * @typedef {Object} Route
 * @property {string} path below `/dashboard`: "/", "/keys", "/vaults/:id"
 * @property {() => Promise<{title: string, show: Function}>} load
 */

/** The part of the address below `/dashboard`, without a slash at its end. */
export function currentPath() {
  const path = window.location.pathname.slice(BASE.length).replace(/\/+$/, "");
  return path || "/";
}

/** The full address of a screen. `href("/keys", {search: "user"})` */
export function href(path, query) {
  const search = searchOf(query);
  return BASE + (path === "/" ? "/" : path) + (search ? `?${search}` : "");
}

/** Go to another screen. @param {string} path below `/dashboard` */
export function navigate(path, query) {
  window.history.pushState(null, "", href(path, query));
  window.dispatchEvent(new Event("dashboard:navigate"));
}

/** Keep what a screen shows in the address, without a new entry in the history and without drawing it again. */
export function setQuery(query) {
  window.history.replaceState(null, "", href(currentPath(), query));
}

function searchOf(query) {
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {})) {
    if (value !== null && value !== undefined && value !== "" && value !== false) search.set(name, String(value));
  }
  return search.toString();
}

/** The parameters of a path that a pattern fits, or null. `matchPath("/vaults/:id", "/vaults/vault_3")` */
function matchPath(pattern, path) {
  const wanted = pattern.split("/").filter(Boolean);
  const given = path.split("/").filter(Boolean);
  if (wanted.length !== given.length) return null;
  const params = {};
  for (const [index, part] of wanted.entries()) {
    if (part.startsWith(":")) params[part.slice(1)] = decodeURIComponent(given[index]);
    else if (part !== given[index]) return null;
  }
  return params;
}

/**
 * Show the screen of the address, now and whenever it changes.
 * @param {Route[]} routes
 * @param {(found: {route: Route|null, params: Object, query: URLSearchParams, signal: AbortSignal}) => void} draw
 * @returns {() => void} stops it
 */
export function startRouter(routes, draw) {
  const life = new AbortController();
  let screen = new AbortController();
  const update = () => {
    screen.abort();
    screen = new AbortController();
    draw({ ...find(routes, currentPath()), query: new URLSearchParams(window.location.search), signal: screen.signal });
  };
  window.addEventListener("popstate", update, { signal: life.signal });
  window.addEventListener("dashboard:navigate", update, { signal: life.signal });
  document.addEventListener("click", followLink, { signal: life.signal });
  update();
  return () => {
    life.abort();
    screen.abort();
  };
}

function find(routes, path) {
  for (const route of routes) {
    const params = matchPath(route.path, path);
    if (params) return { route, params };
  }
  return { route: null, params: {} };
}

function followLink(event) {
  if (event.defaultPrevented || event.button !== 0 || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = event.target.closest?.("a[href]");
  if (!link || link.target || link.hasAttribute("download")) return;
  const url = new URL(link.href, window.location.href);
  const inside = url.pathname === BASE || url.pathname.startsWith(`${BASE}/`);
  if (url.origin !== window.location.origin || !inside || url.pathname.startsWith(`${BASE}/static/`)) return;
  if (url.pathname === window.location.pathname && url.search === window.location.search && url.hash) return;
  event.preventDefault();
  window.history.pushState(null, "", url.pathname + url.search);
  window.dispatchEvent(new Event("dashboard:navigate"));
}
