/** What entries of the audit log say, in words. Pure. An action that is not known is shown as it is called. */

import { duration, number, plural } from "./format.js";
import { href } from "./router.js";

const memories = (detail) => plural(detail.memories ?? 0, "memory", "memories");
const WAYS = { id: "one by one", session: "of a session", filter: "by a filter", undo: "by undo", request: "by undo", mcp: "by an assistant", all: "all of them", vault: "the whole vault" };

const WORDS = {
  "key.created": ({ kind, vault_is_new: fresh, vault }) => `${kind === "account" ? "Account key" : "Key"} created, ${fresh ? "with a new vault" : `for vault_${vault}`}`,
  "key.changed": ({ fields, state }) => `Key changed: ${fieldsOf(fields)}${state && state !== "live" ? ` (now ${state})` : ""}`,
  "key.rotated": ({ new_key: key, grace_ms: grace }) => `Key rotated: key_${key} takes its place${grace ? `, the old one ends after ${duration(grace / 1000)}` : " at once"}`,
  "key.deleted": () => "Key revoked",
  "vault.erased": ({ new_vault: fresh }) => (fresh ? `Vault shredded; vault_${fresh} takes its place` : "Vault shredded"),
  "vault.changed": ({ retention_days: days }) => (days ? `Memories are kept for ${plural(days, "day")}` : "Memories are kept as the account says"),
  vault_opened: () => "Vault opened in the dashboard",
  "account.created": () => "Account created",
  "account.changed": ({ fields, state }) => `Account changed: ${fieldsOf(fields)}${state ? ` (now ${state})` : ""}`,
  "account.deleted": ({ keys, vaults }) => `Account deleted, with ${plural(keys ?? 0, "key")} and ${plural(vaults ?? 0, "vault")}`,
  "account.key_replaced": ({ key, keys_revoked: revoked }) => `Account key replaced by key_${key}; ${number(revoked)} revoked`,
  "provider_key.stored": () => "Provider key stored",
  "provider_key.deleted": () => "Provider key removed",
  "memories.changed": (detail) => `${memories(detail)} changed`,
  "memories.deleted": (detail) => `${memories(detail)} deleted${detail.by ? ` (${WAYS[detail.by] ?? detail.by})` : ""}`,
  "memories.expired": (detail) => `${memories(detail)} expired${detail.retention_days ? ` after ${plural(detail.retention_days, "day")}` : ""}`,
  "memories.imported": (detail) => `${memories(detail)} imported`,
  dashboard_opened: () => "Signed in to the dashboard",
};

const FIELDS = { expires_ms: "expiry", limits: "limits", name: "name", disabled: "switched on or off", retention_days: "retention" };

function fieldsOf(fields) {
  return String(fields ?? "")
    .split(", ")
    .map((one) => FIELDS[one] ?? one)
    .join(", ");
}

/** What was done. @param {{action: string, detail: Object|null}} entry */
export function actionWords(entry) {
  const say = WORDS[entry.action];
  if (say) return say(entry.detail ?? {});
  return entry.action.replaceAll(/[._]/g, " ");
}

/** Who did it. @param {string} actor `key:12`, `operator`, `server` */
export function actorWords(actor) {
  const words = { operator: "Operator", server: "Server" };
  return words[actor] ? { label: words[actor] } : placeOf(actor);
}

/** A thing's id and where the dashboard shows it. @param {string} target `key:13`, `vault:3`, `provider:openai` */
export function placeOf(target) {
  const [kind, name] = String(target).split(":");
  if (!name) return { label: target };
  if (kind === "key") return { label: `key_${name}`, address: href("/keys", { key: `key_${name}` }) };
  if (kind === "vault") return { label: `vault_${name}`, address: href(`/vaults/vault_${name}`) };
  if (kind === "provider") return { label: name, address: href("/providers") };
  if (kind === "account") return { label: `acct_${name}` };
  return { label: target };
}

const ACTOR = /^(key_[1-9]\d{0,17}|operator|server)$/;
const SUBJECT = /^(key|vault|acct)_[1-9]\d{0,17}$/;

/**
 * What a search asks of the server, and the words that are left: "by key_1 key_12 rotated" is what key_1 did to key_12,
 * where it says "rotated".
 * @param {string} text
 */
export function readSearch(text) {
  const asked = { subject: null, actor: null, words: [] };
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  for (let at = 0; at < words.length; at += 1) {
    if (words[at] === "by" && !asked.actor && ACTOR.test(words[at + 1] ?? "")) {
      at += 1;
      asked.actor = words[at];
    } else if (!asked.subject && SUBJECT.test(words[at])) asked.subject = words[at];
    else asked.words.push(words[at]);
  }
  return asked;
}

/** Whether an entry, as it is shown, has all of these words. */
export function fits(entry, words) {
  const text = `${actionWords(entry)} ${actorWords(entry.actor).label} ${placeOf(entry.target).label} ${entry.request_id ?? ""}`.toLowerCase();
  return words.every((word) => text.includes(word));
}
