/** Keys, the newest first: searched and paged by the server, so that a hundred thousand are as quick as ten. */

import { api } from "../api.js";
import { badge, button, checkbox, emptyState, page, pagedTable, searchField, when } from "../components.js";
import { h } from "../dom.js";
import { number, short } from "../format.js";
import { createKey } from "../key_dialogs.js";
import { openKey } from "../key_panel.js";
import { href, setQuery } from "../router.js";

export const title = "Keys";

const PAGE = 50;

export async function show(root, { query, signal }) {
  const wanted = { search: query.get("search") ?? "", revoked: query.get("revoked") === "1" };
  const body = page(root, {
    title,
    lead: "A Memory Key opens one vault. Give each of your users one; keep account keys to yourself.",
    actions: [button("Create a key", { kind: "primary", icon: "plus", onclick: () => create() })],
  });
  const table = keyTable();
  const revoked = checkbox("Show revoked keys", { checked: wanted.revoked, onchange: (event) => look({ revoked: event.target.checked }) });
  const search = searchField({ label: "Search by name", value: wanted.search, signal, onsearch: (text) => look({ search: text }) });
  body.append(h("div", { class: "toolbar" }, search, revoked.element), table.element);
  if (query.get("new")) {
    remember();
    create({ vaultId: query.get("vault") ?? "" });
  } else if (query.get("key")) {
    openById(query.get("key"));
  }

  function look(change) {
    Object.assign(wanted, change);
    remember();
    table.first();
  }

  function remember(more = {}) {
    setQuery({ search: wanted.search, revoked: wanted.revoked ? 1 : null, ...more });
  }

  function keyTable() {
    return pagedTable({
      caption: "Keys",
      limit: PAGE,
      signal,
      rowClass: (key) => key.state !== "live" && "is-off",
      load: async ({ cursor, limit, signal: asked }) => {
        const found = await api.get("v1/keys", { query: { search: wanted.search, include_revoked: wanted.revoked ? "true" : null, order: "desc", cursor, limit }, signal: asked });
        return { rows: found.data, next: found.next_cursor };
      },
      columns: columns(open),
      empty: () => (wanted.search ? nothingFound() : noKeys()),
    });
  }

  function nothingFound() {
    return emptyState({ title: `No key's name contains “${wanted.search}”`, text: wanted.revoked ? "" : "Revoked keys are left out; the box above shows them too." });
  }

  function noKeys() {
    return emptyState({ title: "No keys yet", text: "Each key opens a vault of its own.", actions: [button("Create a key", { kind: "primary", icon: "plus", onclick: () => create() })] });
  }

  async function create(given = {}) {
    if (await createKey(given)) table.reload();
  }

  async function open(key) {
    remember({ key: key.id });
    await openKey(key, { signal, onchange: () => table.reload(), oncreate: (vaultId) => create({ vaultId }) });
    if (!signal.aborted) remember();
  }

  async function openById(id) {
    const key = await api.get(`v1/keys/${encodeURIComponent(id)}`, { signal }).catch(() => null);
    if (key) await open(key);
    else remember();
  }
}

/** What a key's state is called, and how it looks. */
export function stateBadge(key) {
  const states = { live: ["Live", "ok"], disabled: ["Disabled", "warning"], expired: ["Expired", "neutral"], revoked: ["Revoked", "neutral"] };
  if (key.state === "live" && key.rotated_to) return badge("Replaced", "warning");
  return badge(...(states[key.state] ?? [key.state, "neutral"]));
}

function columns(open) {
  return [
    {
      label: "Name",
      header: true,
      cell: (key) =>
        h(
          "div",
          { class: "key-name" },
          h("span", { class: "key-title" }, h("button", { type: "button", class: "link-button", title: key.name, dataset: { focus: key.id }, onclick: () => open(key) }, key.name), key.kind === "account" && badge("Account", "accent")),
          h("code", { class: "muted" }, key.prefix),
        ),
    },
    { label: "State", cell: stateBadge },
    { label: "Vault", from: "medium", cell: (key) => h("a", { href: href(`/vaults/${key.vault_id}`) }, key.vault_id) },
    { label: "Memories", end: true, from: "medium", cell: (key) => h("span", { title: number(key.vault_memories) }, short(key.vault_memories)) },
    { label: "Limits", from: "wide", cell: (key) => limitsText(key.limits) || h("span", { class: "muted" }, "–") },
    { label: "Expires", from: "wide", cell: (key) => when(key.expires_at, "–") },
    { label: "Created", from: "wide", cell: (key) => when(key.created_at) },
    { label: "Last used", end: true, cell: (key) => when(key.last_used_at) },
  ];
}

/** A key's own limits in a few words; "" where it has none. */
export function limitsText(limits) {
  const say = (value, unit, what) => {
    if (value === null || value === undefined) return null;
    return value === 0 ? `no limit ${what}` : short(value) + unit;
  };
  return [
    say(limits.requests_per_minute, "/min", "a minute"),
    say(limits.concurrent_max, " at once", "at once"),
    say(limits.memories_max, " memories", "on memories"),
  ]
    .filter(Boolean)
    .join(" · ");
}
