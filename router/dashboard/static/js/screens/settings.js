/** The settings in force, by area: what each is, whether it was changed, and the environment variable that sets it. */

import { api } from "../api.js";
import { badge, checkbox, copyButton, emptyState, page, searchField, skeleton } from "../components.js";
import { h, replace, setText } from "../dom.js";
import { bytes, plural } from "../format.js";
import { setQuery } from "../router.js";

export const title = "Settings in force";

export async function show(root, { query, signal }) {
  const wanted = { search: query.get("search") ?? "", changed: query.get("changed") === "1" };
  const body = page(root, { title, lead: "From config.toml and the environment, read when the server starts. Secrets are not shown." });
  const place = h("div", { class: "settings" }, skeleton(8));
  const found = h("p", { class: "muted", role: "status" });
  const only = checkbox("Changed only", { checked: wanted.changed, onchange: (event) => look({ changed: event.target.checked }) });
  const search = searchField({ label: "Search settings", value: wanted.search, signal, waitMs: 60, onsearch: (text) => look({ search: text }) });
  body.append(h("div", { class: "toolbar" }, search, only.element, found), place);
  let all = null;
  const answer = await api.get("settings", { signal });
  all = Array.isArray(answer) ? answer : answer.data;
  draw();

  function look(change) {
    Object.assign(wanted, change);
    setQuery({ search: wanted.search, changed: wanted.changed ? 1 : null });
    if (all) draw();
  }

  function draw() {
    const words = wanted.search.toLowerCase().split(/\s+/).filter(Boolean);
    const shown = all.filter((one) => (!wanted.changed || one.changed) && matches(one, words));
    setText(found, `${plural(shown.length, "setting")}, ${shown.filter((one) => one.changed).length} changed`);
    if (shown.length === 0) {
      replace(place, emptyState({ title: "No such setting", text: wanted.changed && !wanted.search ? "Every setting has its default." : "The search looks at names, what they mean, and environment variables." }));
      return;
    }
    const areas = groupBy(shown, (one) => one.name.split(".")[0]);
    const open = words.length > 0 || wanted.changed;
    replace(place, index(areas), h("div", { class: "settings-list" }, areas.map(([area, settings]) => group(area, settings, open))));
  }
}

function matches(setting, words) {
  const text = `${setting.name} ${setting.environment ?? ""} ${setting.doc}`.toLowerCase();
  return words.every((word) => text.includes(word));
}

function groupBy(settings, keyOf) {
  const groups = new Map();
  for (const setting of settings) {
    const key = keyOf(setting);
    if (!groups.has(key)) groups.set(key, []);
    groups.get(key).push(setting);
  }
  return [...groups];
}

function words(name) {
  return name.replaceAll("_", " ");
}

function index(areas) {
  const link = ([area, settings]) => {
    const changed = settings.filter((one) => one.changed).length;
    return h("li", null, h("a", { href: `#area-${area}`, onclick: (event) => jump(event, area) }, h("span", null, words(area)), changed > 0 && badge(String(changed), "accent", { title: `${changed} changed` })));
  };
  return h("nav", { class: "settings-index", "aria-label": "Areas" }, h("ul", null, areas.map(link)));
}

function jump(event, area) {
  event.preventDefault();
  const heading = document.getElementById(`area-${area}`);
  heading.closest("section").scrollIntoView({ block: "start" });
  heading.focus({ preventScroll: true });
}

/** An area: its own settings, and one part to unfold for each table with a name of its own (`providers.openai`). */
function group(area, settings, open) {
  const own = settings.filter((one) => one.name.split(".").length < 3);
  const tables = groupBy(settings.filter((one) => one.name.split(".").length >= 3), (one) => one.name.split(".").slice(0, -1).join("."));
  return h(
    "section",
    { class: "card setting-group", "aria-labelledby": `area-${area}` },
    h("h2", { id: `area-${area}`, tabindex: "-1" }, words(area)),
    own.length > 0 && h("ul", null, own.map((one) => line(one))),
    tables.map(([name, inside]) => table(name.slice(area.length + 1), inside, open)),
  );
}

function table(name, settings, open) {
  const changed = settings.filter((one) => one.changed).length;
  const summary = h("summary", null, h("span", { class: "setting-table" }, name), h("span", { class: "muted" }, plural(settings.length, "setting")), changed > 0 && badge(`${changed} changed`, "accent"));
  const element = h("details", { open: open || changed > 0 }, summary);
  // Two hundred of these lines are rarely looked at: they are made when they are.
  const fill = () => element.open && !element.querySelector("ul") && element.append(h("ul", null, settings.map((one) => line(one))));
  element.addEventListener("toggle", fill);
  fill();
  return element;
}

function line(setting) {
  const name = setting.name.split(".").at(-1);
  return h(
    "li",
    { class: ["setting", setting.changed && "is-changed"] },
    h("div", null, h("p", { class: "setting-name" }, h("code", null, name), setting.changed && badge("Changed", "accent")), setting.doc && h("p", { class: "muted" }, marked(setting.doc))),
    h("div", { class: "setting-value" }, h("code", null, valueText(setting.value)), sizeNote(setting), setting.changed && h("p", { class: "muted" }, "default ", h("code", null, valueText(setting.default)))),
    setting.environment ? h("div", { class: "setting-environment" }, h("code", null, breakable(setting.environment)), copyButton(setting.environment, { label: "Copy", kind: "quiet", spoken: `Copy ${setting.environment}` })) : h("p", { class: "muted" }, "in config.toml only"),
  );
}

/** A sentence with `code` in it. */
function marked(text) {
  return text.split("`").map((part, at) => (at % 2 ? h("code", null, part) : part));
}

/** A long name that breaks between its words. */
function breakable(text) {
  return text.split(/(?<=_)(?!_)/).flatMap((part) => [part, h("wbr")]);
}

/** What a number of bytes is in larger units. */
function sizeNote({ name, value }) {
  const large = name.endsWith("bytes") && typeof value === "number" && value >= 1024;
  return large && h("span", { class: "muted setting-size" }, bytes(value));
}

function valueText(value) {
  if (value === null || value === undefined) return "none";
  if (value === "") return "empty";
  if (Array.isArray(value)) return value.length ? value.map(valueText).join(", ") : "none";
  if (typeof value === "object") return Object.keys(value).length ? JSON.stringify(value) : "none";
  return String(value);
}
