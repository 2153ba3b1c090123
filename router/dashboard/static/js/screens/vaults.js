/** The vaults of the account, a page at a time: found by the name of the key that opens them, or by their id. */

import { api } from "../api.js";
import { badge, emptyState, linkButton, page, pagedTable, searchField, select, when } from "../components.js";
import { h } from "../dom.js";
import { bytes, number } from "../format.js";
import { href, setQuery } from "../router.js";

export const title = "Vaults";

const KINDS = [
  ["", "Opened by a key"],
  ["kept", "Without a key"],
];
const VAULT_ID = /^(?:vault_)?([1-9][0-9]{0,17})$/;

/** Show it. */
export async function show(root, { query, signal }) {
  let search = query.get("search") ?? "";
  let kind = query.get("kind") ?? "";
  const body = page(root, { title: "Vaults", lead: "Each Memory Key opens one vault; nothing in it is seen by another." });
  const table = pagedTable({
    caption: "Vaults",
    signal,
    columns: [
      { label: "Vault", header: true, cell: (row) => h("a", { href: href(`/vaults/${row.id}`) }, row.id) },
      { label: "Opened by", cell: openedBy },
      { label: "Memories", end: true, cell: (row) => number(row.memories) },
      { label: "Size", end: true, from: "medium", cell: (row) => bytes(row.bytes) },
      { label: "Last used", from: "wide", cell: (row) => (row.key ? when(row.key.last_used_at) : "") },
      { label: "Made", from: "wide", cell: (row) => when(row.created_at) },
    ],
    load,
    empty,
  });

  async function load({ cursor, limit, signal: mine }) {
    const asked = VAULT_ID.exec(search);
    if (asked) return { rows: await oneVault(`vault_${asked[1]}`, mine), next: null };
    if (kind === "kept") {
      const found = await api.get("v1/vaults", { signal: mine, query: { without_keys: true, cursor, limit } });
      return { rows: found.data, next: found.next_cursor };
    }
    const found = await api.get("v1/keys", { signal: mine, query: { search, cursor, limit } });
    return { rows: byVault(found.data), next: found.next_cursor };
  }

  function apply() {
    kinds.disabled = VAULT_ID.test(search);
    setQuery({ search, kind });
    table.first();
  }

  function empty() {
    if (search) return emptyState({ title: "No vault is opened by such a key.", text: "The search looks at the names of keys, and at the ids of vaults." });
    if (kind === "kept") return emptyState({ title: "Every vault has its key.", text: "A vault is kept without one when its key is deleted and the vault is not." });
    return emptyState({ title: "No vaults yet.", text: "A vault is made with its Memory Key.", actions: [linkButton("Make a key", href("/keys"), { kind: "primary", icon: "keys" })] });
  }

  const finder = searchField({ label: "Name of the key, or vault id", value: search, signal, onsearch: (text) => ((search = text), apply()) });
  const kinds = select(KINDS, { value: kind, "aria-label": "Which vaults", onchange: (event) => ((kind = event.target.value), apply()) });
  body.append(h("div", { class: "toolbar" }, finder, kinds), table.element);
}

function openedBy(row) {
  if (!row.key) return h("span", { class: "muted" }, row.live_keys ? "a key" : "no key");
  return h("span", { class: "opened-by" }, row.key.name, row.key.kind === "account" && badge("account", "accent"), row.key.state !== "live" && row.key.state !== "active" && badge(row.key.state, "warning"));
}

/** Keys in the order in which they were made, as the vaults that they open: while one is rotated, two open the same. */
function byVault(keys) {
  const vaults = new Map();
  for (const key of keys) vaults.set(key.vault_id, { id: key.vault_id, memories: key.vault_memories, bytes: key.vault_bytes, created_at: key.created_at, live_keys: 1, key });
  return [...vaults.values()];
}

async function oneVault(id, signal) {
  try {
    return [await api.get(`v1/vaults/${id}`, { signal })];
  } catch (error) {
    if (error.status === 404) return [];
    throw error;
  }
}
