/**
 * One memory as every list shows it, and what can be done to it: read it whole, edit it, delete it, undo its request.
 * Memory texts are what strangers wrote: they go in as text nodes, wherever they stand.
 */

import { ApiError, api } from "./api.js";
import { h, replace } from "./dom.js";
import { badge, confirmDialog, field, formDialog, iconButton, select, textInput, toast, toastError, when } from "./components.js";
import { plural } from "./format.js";
import { href } from "./router.js";
import { undoRequest } from "./vault_undo.js";

const SHORT_CHARACTERS = 600;
const SHORT_LINES = 8;
const BEFORE_MATCH = 120;

export const ROLES = [
  ["user", "User"],
  ["assistant", "Assistant"],
];
export const SOURCES = [
  ["proxy", "Chat"],
  ["ingest", "Ingest"],
  ["upload", "Upload"],
  ["import", "Import"],
];

/** A label out of a list of `[key, label]`; the key where there is none. */
export function labelOf(list, key) {
  return list.find(([known]) => known === key)?.[1] ?? key;
}

/**
 * @typedef {Object} Around what surrounds a memory in its list
 * @property {string} vault
 * @property {{has: (id: string) => boolean, set: (id: string, on: boolean) => void}} [selection]
 * @property {() => void} [ongone] it was deleted, with others perhaps
 * @property {string} [matched] the part of it that a search found
 * @property {Node} [lead] before everything else, such as its rank
 * @property {Node} [aside] beside its text
 */

/** One memory, as an item of a list. @param {Object} memory as `/v1/memories` shows it @param {Around} around */
export function memoryItem(memory, around) {
  const item = h("li", { class: "memory", dataset: { memory: memory.id } });
  return draw(item, memory, around);
}

function draw(item, memory, around) {
  const main = h("div", { class: "memory-main" }, memoryText(memory, around), metadataOf(memory));
  return replace(
    item,
    h("div", { class: "memory-head" }, around.lead, checkOf(memory, around), badge(labelOf(ROLES, memory.role), memory.role === "user" ? "accent" : "neutral"), when(memory.timestamp), factsOf(memory, around), actionsOf(item, memory, around)),
    h("div", { class: ["memory-body", around.aside && "has-aside"] }, main, around.aside),
  );
}

function checkOf(memory, { selection }) {
  if (!selection) return null;
  const change = (event) => selection.set(memory.id, event.target.checked);
  return h("input", { type: "checkbox", class: "memory-check", checked: selection.has(memory.id), "aria-label": `Select ${memory.id}`, onchange: change });
}

function factsOf(memory, { vault }) {
  const timeline = (query) => href(`/vaults/${vault}`, { tab: "timeline", ...query });
  return h(
    "ul",
    { class: "memory-facts", "aria-label": "About this memory" },
    memory.session_id !== null && memory.session_id !== undefined && h("li", null, "session ", h("a", { href: timeline({ session_id: memory.session_id }) }, memory.session_id)),
    memory.source && h("li", null, labelOf(SOURCES, memory.source).toLowerCase()),
    memory.model && h("li", { class: "memory-model" }, memory.model),
    memory.external_id && h("li", null, "id ", h("span", { class: "mono" }, memory.external_id)),
    memory.pending && h("li", null, badge("not embedded yet", "neutral", { title: "Found by its words; its meaning follows." })),
    memory.flagged?.length > 0 && h("li", null, badge("looks planted", "warning", { title: memory.flagged.join(", ") })),
  );
}

function actionsOf(item, memory, around) {
  const { vault } = around;
  const changed = (now) => draw(item, { ...memory, ...now, truncated: undefined }, { ...around, matched: undefined });
  return h(
    "div",
    { class: "memory-actions" },
    h("a", { class: "memory-id", href: href(`/vaults/${vault}`, { memory: memory.id }) }, memory.id),
    iconButton("edit", `Edit ${memory.id}`, () => editMemory(memory, vault, changed)),
    memory.request_id && iconButton("undo", `Undo the request that stored ${memory.id}`, () => undoRequest(vault, memory.request_id, around.ongone)),
    iconButton("trash", `Delete ${memory.id}`, () => deleteMemory(memory, vault, around.ongone)),
  );
}

function metadataOf(memory) {
  if (!memory.metadata || Object.keys(memory.metadata).length === 0) return null;
  const pairs = Object.entries(memory.metadata).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, typeof value === "string" ? value : JSON.stringify(value))));
  return h("dl", { class: "memory-metadata" }, pairs);
}

/** Its text: short at first where it is long, around what was found. */
function memoryText(memory, { vault, matched }) {
  const place = h("div", { class: "memory-text" });
  const short = shortened(memory.content, matched);
  if (short === null && !memory.truncated) return replace(place, marked(memory.content, matched));
  const whole = async () => {
    try {
      const { content } = memory.truncated ? await api.get(`v1/memories/${memory.id}`, { vault }) : memory;
      replace(place, marked(content, matched), more("Show less", less));
    } catch (error) {
      toastError(error);
    }
  };
  const less = () => replace(place, marked(short ?? memory.content, matched), " …", more(`Show all ${memory.truncated ? "of it" : plural(memory.content.length, "character")}`, whole));
  less();
  return place;
}

function more(label, onclick) {
  return h("div", null, h("button", { type: "button", class: "link-button", onclick }, label));
}

/** The part of a long text to show first, or null for a text that is short enough. */
function shortened(content, matched) {
  const lines = content.split("\n");
  if (content.length <= SHORT_CHARACTERS && lines.length <= SHORT_LINES) return null;
  const at = matched ? Math.max(0, content.indexOf(matched) - BEFORE_MATCH) : 0;
  const cut = content.slice(at, at + Math.max(SHORT_CHARACTERS, matched ? Math.min(matched.length + BEFORE_MATCH, 2 * SHORT_CHARACTERS) : 0));
  return (at ? "… " : "") + cut.split("\n").slice(0, SHORT_LINES).join("\n");
}

/** A text with the part that was found in it marked. */
function marked(content, matched) {
  const at = matched && matched.length < content.length ? content.indexOf(matched) : -1;
  if (at < 0) return [content];
  return [content.slice(0, at), h("mark", null, matched), content.slice(at + matched.length)];
}

/** Ask, then delete one memory. */
async function deleteMemory(memory, vault, ongone) {
  const excerpt = memory.content.length > 200 ? `${memory.content.slice(0, 200)}…` : memory.content;
  const done = await confirmDialog({
    title: `Delete ${memory.id}?`,
    text: [h("blockquote", { class: "quote" }, excerpt), h("p", null, "It is deleted for good. Nothing that is asked from now on will find it.")],
    confirm: "Delete memory",
    danger: true,
    work: () => api.delete(`v1/memories/${memory.id}`, { vault }),
  });
  if (!done) return;
  toast(`${memory.id} is deleted.`);
  ongone?.();
}

/** Change a memory's text, role, session, time or metadata. */
async function editMemory(listed, vault, changed) {
  let memory;
  try {
    memory = await api.get(`v1/memories/${listed.id}`, { vault });
  } catch (error) {
    toastError(error);
    return;
  }
  const metadata = memory.metadata ? JSON.stringify(memory.metadata, null, 2) : "";
  const before = { content: memory.content, role: memory.role, session_id: memory.session_id ?? "", timestamp: localTime(memory.timestamp), metadata };
  const text = (name, label, rows, options) => ({ name, field: field(label, h("textarea", { class: "input", rows, value: before[name], spellcheck: "false" }), options) });
  const now = await formDialog({
    title: `Edit ${memory.id}`,
    wide: true,
    submitLabel: "Save",
    fields: [
      text("content", "Text", 8, { hint: "The new text takes the place of the old one at once; nothing of the old one is kept." }),
      { name: "role", field: field("Said by", select(ROLES, { value: before.role })) },
      { name: "session_id", field: field("Session", textInput({ value: before.session_id }), { optional: true }) },
      { name: "timestamp", field: field("Said at", h("input", { type: "datetime-local", class: "input", step: "1", value: before.timestamp })) },
      text("metadata", "Metadata", 3, { optional: true, hint: "A JSON object." }),
    ],
    submit: (values) => {
      const change = changeOf(before, values);
      return Object.keys(change).length ? api.patch(`v1/memories/${memory.id}`, { vault, body: change }) : memory;
    },
  });
  if (!now) return;
  changed(now);
  toast(`${memory.id} is saved.`);
}

function changeOf(before, values) {
  const change = {};
  for (const [name, value] of Object.entries(values)) {
    if (value !== before[name]) change[name] = value;
  }
  if ("session_id" in change) change.session_id = change.session_id.trim() || null;
  if ("timestamp" in change) change.timestamp = new Date(change.timestamp).getTime() || null;
  if ("metadata" in change) change.metadata = objectOf(change.metadata);
  return change;
}

function objectOf(text) {
  if (!text.trim()) return null;
  try {
    return JSON.parse(text);
  } catch {
    throw new ApiError({ status: 0, message: "This is not JSON.", field: "metadata" });
  }
}

/** Epoch milliseconds as a `datetime-local` input holds them, in the reader's time zone. */
export function localTime(ms) {
  const at = new Date(ms);
  return new Date(ms - at.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
}
