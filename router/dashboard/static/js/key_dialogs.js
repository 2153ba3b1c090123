/** What is asked when a key is made or changed. A key's text is shown once, here, and held nowhere else. */

import { api } from "./api.js";
import { badge, button, codeBlock, confirmDialog, copyButton, field, formDialog, notice, openDialog, select, tabs, textInput, toast } from "./components.js";
import { h } from "./dom.js";
import { ago, asDate, dateTime, plural } from "./format.js";
import { usesOf } from "./snippets.js";

const pathOf = (key) => `v1/keys/${key.id}`;

/** Make a key, and show it once. @param {{vaultId?: string}} given @returns {Promise<Object|undefined>} the key */
export async function createKey({ vaultId = "" } = {}) {
  const name = field("Name", textInput({ maxlength: "200", placeholder: "user:42" }), { hint: "What you know the user by. It can be changed later." });
  const kind = field("Kind", select([["user", "User key: opens its vault, nothing else"], ["account", "Account key: manages everything here"]], { onchange: adapt }));
  const vault = field("Vault", textInput({ value: vaultId, placeholder: "a new one" }), { optional: true, hint: "The id of a kept vault that no key opens, like vault_3." });
  const expiry = field("Expires", textInput({ type: "datetime-local" }), { optional: true, hint: "Empty: never." });
  const limits = limitFields({});
  const more = h("details", { class: "form-more", open: Boolean(vaultId) }, h("summary", null, "Vault, expiry, limits"), h("div", { class: "form" }, vault.element, expiry.element, limits.element));
  function adapt() {
    more.hidden = kind.control.value === "account"; // it has neither limits nor an end
  }
  const created = await formDialog({
    title: "Create a key",
    submitLabel: "Create",
    fields: [{ name: "name", field: name }, { name: "kind", field: kind }, more, { name: "vault_id", field: vault, inside: true }, { name: "expires_at", field: expiry, inside: true }, ...limits.named],
    submit: async (values) => {
      if (!values.name.trim()) throw Object.assign(new Error("Give it a name."), { field: "name" });
      const body = { name: values.name.trim(), kind: values.kind };
      if (values.kind === "user") Object.assign(body, { vault_id: values.vault_id.trim() || null, expires_at: isoOf(values.expires_at), limits: limitsOf(values) });
      return api.post("v1/keys", { body });
    },
  });
  if (created) await showOnce(created, { title: "Key created" });
  return created;
}

/** The only time that a key is seen. */
async function showOnce(key, { title, about }) {
  const uses = usesOf(key.key).map(({ id, label, text }) => ({ id, label, panel: () => codeBlock(text, { name: `${label} with this key` }) }));
  const box = h("div", { class: "secret" }, h("code", { class: "secret-text", tabindex: "0", role: "textbox", "aria-readonly": "true", "aria-label": "The key" }, key.key), copyButton(key.key, { label: "Copy key", kind: "primary", small: false }));
  const dialog = openDialog({
    title,
    wide: true,
    persistent: true,
    body: [
      notice("warning", h("strong", null, "Copy it now."), " It is shown this once; the server keeps only its hash."),
      box,
      about && h("p", null, about),
      h("dl", { class: "facts" }, h("dt", null, "Name"), h("dd", null, key.name, " ", key.kind === "account" && badge("Account", "accent")), h("dt", null, "Vault"), h("dd", null, key.vault_id)),
      h("section", { "aria-label": "How to use it" }, h("h3", null, "Use it"), tabs(uses, { label: "Ways to use the key" }).element),
    ],
    actions: [button("Done", { kind: "primary", onclick: () => dialog.close() })],
  });
  box.querySelector("button").focus();
  await dialog.closed;
}

/** @returns {Promise<Object|undefined>} the key as it is now */
export function renameKey(key) {
  const name = field("Name", textInput({ value: key.name, maxlength: "200" }));
  return formDialog({
    title: "Rename the key",
    submitLabel: "Rename",
    fields: [{ name: "name", field: name }],
    submit: async (values) => told(api.patch(pathOf(key), { body: { name: values.name } }), "Renamed."),
  });
}

/** @returns {Promise<Object|undefined>} */
export function limitKey(key) {
  const limits = limitFields(key.limits);
  return formDialog({
    title: `Limits of “${key.name}”`,
    submitLabel: "Save",
    intro: "An empty field: what the server's settings say for every key. 0: no limit.",
    fields: [limits.element, ...limits.named],
    submit: async (values) => told(api.patch(pathOf(key), { body: { limits: limitsOf(values) } }), "Limits saved."),
  });
}

/** @returns {Promise<Object|undefined>} */
export function expireKey(key) {
  const expiry = field("Expires", textInput({ type: "datetime-local", value: localOf(key.expires_at) }), { hint: "In your time zone. Empty: never." });
  return formDialog({
    title: `Expiry of “${key.name}”`,
    submitLabel: "Save",
    fields: [{ name: "expires_at", field: expiry }],
    submit: async (values) => told(api.patch(pathOf(key), { body: { expires_at: isoOf(values.expires_at) } }), values.expires_at ? "Expiry saved." : "It does not expire."),
  });
}

/** Switch it off, or on again. @returns {Promise<Object|undefined>} */
export async function switchKey(key) {
  const off = key.state !== "disabled";
  const work = () => api.patch(pathOf(key), { body: { disabled: off } });
  if (!off) return told(work(), "The key works again.");
  let changed;
  await confirmDialog({
    title: `Disable “${key.name}”?`,
    text: "Its next request is refused. Its memories stay, and it can be enabled again at any time.",
    confirm: "Disable",
    work: async () => (changed = await told(work(), "Disabled.")),
  });
  return changed;
}

const GRACES = [["0", "At once"], ["600", "In 10 minutes"], ["3600", "In one hour"], ["86400", "In one day"], ["604800", "In 7 days"], ["2592000", "In 30 days"]];

/** A new key for the same vault. @returns {Promise<Object|undefined>} the new key */
export async function rotateKey(key) {
  const grace = field("The old key ends", select(GRACES, { value: "3600" }), { hint: "Until then both open the vault." });
  const rotated = await formDialog({
    title: `Rotate “${key.name}”`,
    submitLabel: "Rotate",
    intro: "Makes a new key for the same vault, with the same name, limits and expiry.",
    fields: [{ name: "grace_s", field: grace }],
    submit: (values) => api.post(`${pathOf(key)}/rotate`, { body: { grace_s: Number(values.grace_s) } }),
  });
  if (!rotated) return undefined;
  const until = asDate(rotated.replaces.valid_until);
  const about = until > Date.now() + 5000 ? `The old key works until ${dateTime(until)} (${ago(until)}).` : "The old key has ended.";
  await showOnce(rotated, { title: "The new key", about });
  return rotated;
}

/** End it for good; its vault stays. @returns {Promise<boolean>} */
export function revokeKey(key) {
  return confirmDialog({
    title: `Revoke “${key.name}”?`,
    text: [h("p", null, "The key ends for good and cannot be brought back."), h("p", null, "Its vault ", h("strong", null, key.vault_id), memoriesOf(key), " is kept. A new key can be made for it, or it can be deleted later.")],
    confirm: "Revoke",
    danger: true,
    work: () => told(api.delete(pathOf(key), { query: { vault: "keep" } }), "Revoked. Its vault is kept."),
  });
}

/** End it for good and shred its vault. @returns {Promise<boolean>} */
export function deleteKey(key) {
  return confirmDialog({
    title: "Delete the key and its vault?",
    text: [h("p", null, "The key ", h("strong", null, key.name), " and everything remembered in ", h("strong", null, key.vault_id), memoriesOf(key), " are gone for good: the vault's encryption key is destroyed. Nobody can undo this.")],
    confirm: "Delete for good",
    danger: true,
    typed: key.vault_id,
    work: () => told(api.delete(pathOf(key), { query: { vault: "delete" } }), "The key and its vault are deleted."),
  });
}

function memoriesOf(key) {
  return Number.isInteger(key.vault_memories) ? ` (${plural(key.vault_memories, "memory", "memories")})` : "";
}

async function told(work, said) {
  const result = await work;
  toast(said);
  return result;
}

const LIMITS = [
  ["requests_per_minute", "Requests a minute"],
  ["requests_burst", "Burst"],
  ["concurrent_max", "Requests at once"],
  ["memories_max", "Memories"],
];

function limitFields(limits) {
  const named = LIMITS.map(([name, label]) => ({
    name: `limits.${name}`,
    inside: true,
    field: field(label, textInput({ inputmode: "numeric", pattern: "[0-9]*", placeholder: "as the server", value: limits[name] ?? "" })),
  }));
  return { named, element: h("div", { class: "form-row" }, named.map((one) => one.field.element)) };
}

function limitsOf(values) {
  const limits = {};
  for (const [name, label] of LIMITS) {
    const text = values[`limits.${name}`].trim().replaceAll(/[\s,_]/g, "");
    if (text && !/^\d{1,10}$/.test(text)) throw Object.assign(new Error(`${label}: a whole number, 0 for no limit, or nothing.`), { field: `limits.${name}` });
    limits[name] = text ? Number(text) : null;
  }
  return limits;
}

/** What a browser's local date and time means, as the API takes it. */
function isoOf(local) {
  return local ? new Date(local).toISOString() : null;
}

function localOf(iso) {
  const found = asDate(iso);
  if (!found) return "";
  return new Date(found.getTime() - found.getTimezoneOffset() * 60_000).toISOString().slice(0, 16);
}
