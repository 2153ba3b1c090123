/** The start: sign-in, or the frame around the screens. Owns the table of screens. */

import { currentSession, resume, signOut, whenSignedOut } from "./api.js";
import { errorState, iconButton, skeleton } from "./components.js";
import { h, icon, replace, setText } from "./dom.js";
import { isAbort } from "./live.js";
import { currentPath, href, startRouter } from "./router.js";
import { show as showSignIn } from "./screens/sign-in.js";
import { currentTheme, nextTheme, setTheme } from "./theme.js";

/** Screens by their place below `/dashboard`; those with `label` stand in the navigation, `operator`: in the operator's. */
const ROUTES = [
  { path: "/", label: "Overview", icon: "overview", load: () => import("./screens/overview.js") },
  { path: "/keys", label: "Keys", icon: "keys", load: () => import("./screens/keys.js") },
  { path: "/vaults", label: "Vaults", icon: "vaults", load: () => import("./screens/vaults.js") },
  { path: "/vaults/:id", parent: "/vaults", load: () => import("./screens/vault.js") },
  { path: "/playground", label: "Playground", icon: "playground", load: () => import("./screens/playground.js") },
  { path: "/usage", label: "Usage", icon: "usage", load: () => import("./screens/usage.js") },
  { path: "/providers", label: "Providers", icon: "providers", load: () => import("./screens/providers.js") },
  { path: "/cluster", label: "Cluster", icon: "cluster", operator: true, load: () => import("./screens/cluster.js") },
  { path: "/audit", label: "Audit log", icon: "audit", load: () => import("./screens/audit.js") },
  { path: "/settings", label: "Settings", icon: "settings", load: () => import("./screens/settings.js") },
];

const NAME = "MemoryRouter";
const app = document.getElementById("app");
let stop = () => {};

start();

async function start() {
  whenSignedOut(() => enterSignIn("Your session has ended. Sign in again; you come back to where you were."));
  try {
    if (await resume()) enterApp();
    else enterSignIn();
  } catch (error) {
    document.title = NAME;
    replace(app, h("main", { class: "alone" }, errorState(error, start)));
  }
}

function enterSignIn(reason = "") {
  stop();
  document.title = `Sign in · ${NAME}`;
  for (const dialog of document.querySelectorAll("dialog[open]")) dialog.close();
  showSignIn(app, { reason, onsignedin: enterApp });
}

function enterApp() {
  stop();
  const main = h("main", { id: "content", class: "content", tabindex: "-1" });
  const links = ROUTES.filter((route) => route.label && (!route.operator || currentSession().is_operator)).map(navigationLink);
  const frame = h("div", { class: "frame" }, sidebar(links), main);
  replace(app, h("a", { class: "skip-link", href: "#content", onclick: (event) => skipTo(event, main) }, "Skip to the content"), frame);
  let first = true;
  stop = startRouter(ROUTES, (found) => {
    frame.classList.remove("is-open");
    frame.querySelector(".menu-button").setAttribute("aria-expanded", "false");
    markCurrent(links, found.route);
    draw(main, found, { focus: !first });
    first = false;
  });
}

function skipTo(event, main) {
  event.preventDefault();
  main.focus();
}

async function draw(main, { route, params, query, signal }, { focus }) {
  const root = h("div", { class: "screen" });
  if (!route) {
    document.title = `Not found · ${NAME}`;
    replace(main, h("h1", null, "There is no such page"), h("p", null, h("a", { href: href("/") }, "To the overview")));
    return;
  }
  replace(main, root);
  const waiting = window.setTimeout(() => replace(root, skeleton(4)), 150);
  try {
    const screen = await route.load().catch(outdated);
    window.clearTimeout(waiting);
    if (signal.aborted) return;
    replace(root);
    document.title = `${screen.title} · ${NAME}`;
    await screen.show(root, { params, query, signal });
    if (signal.aborted) return;
  } catch (error) {
    window.clearTimeout(waiting);
    if (isAbort(error) || signal.aborted) return;
    const again = () => draw(main, { route, params, query, signal }, { focus });
    replace(root, errorState(error, error.reload ? () => window.location.reload() : again));
  }
  window.scrollTo(0, 0);
  if (focus) root.querySelector("h1")?.focus({ preventScroll: true });
}

/** The files of an older version are not there any more once the server was updated. */
function outdated() {
  const error = new Error("This part of the dashboard could not be loaded.");
  error.hint = "If the server was updated or stopped, reload the page.";
  error.reload = true;
  throw error;
}

function navigationLink({ path, label, icon: name }) {
  return h("a", { href: href(path), class: "nav-link", dataset: { path } }, icon(name), h("span", null, label));
}

function markCurrent(links, route) {
  const current = route?.parent ?? route?.path ?? currentPath();
  for (const link of links) {
    if (link.dataset.path === current) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
}

function sidebar(links) {
  const session = currentSession();
  const toggle = iconButton("menu", "Menu", () => {
    const open = toggle.closest(".frame").classList.toggle("is-open");
    toggle.setAttribute("aria-expanded", String(open));
  }, { class: "icon-button menu-button", "aria-expanded": "false", "aria-controls": "navigation" });
  return h(
    "header",
    { class: "sidebar" },
    h("div", { class: "sidebar-head" }, brand(), toggle),
    h(
      "div",
      { class: "sidebar-body", id: "navigation" },
      h("nav", { "aria-label": "Screens", class: "nav" }, links),
      h(
        "div",
        { class: "sidebar-foot" },
        h("p", { class: "account" }, h("span", { class: "account-name" }, session.account.name || "Account"), h("span", { class: "account-id" }, session.version ? `${session.account.id} · v${session.version}` : session.account.id)),
        h("div", { class: "foot-buttons" }, themeButton(), iconButton("leave", "Sign out", leave)),
      ),
    ),
  );
}

function brand() {
  return h("a", { class: "brand", href: href("/") }, h("img", { src: "/dashboard/static/logo.svg", alt: "", width: "24", height: "24" }), h("span", null, NAME));
}

function themeButton() {
  const words = { auto: "Theme: as the system", light: "Theme: light", dark: "Theme: dark" };
  const icons = { auto: "auto", light: "sun", dark: "moon" };
  const spoken = h("span", { class: "visually-hidden", role: "status" });
  const element = iconButton("auto", "", () => {
    setTheme(nextTheme());
    label();
    setText(spoken, words[currentTheme()]);
  });
  function label() {
    const theme = currentTheme();
    replace(element, icon(icons[theme]));
    element.setAttribute("aria-label", words[theme]);
    element.setAttribute("title", words[theme]);
  }
  label();
  return h("span", null, element, spoken);
}

async function leave() {
  await signOut();
  enterSignIn();
}

