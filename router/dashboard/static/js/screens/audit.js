/** The audit log in words: who did what to which key, vault or provider, the newest first. */

import { api } from "../api.js";
import { badge, emptyState, page, pagedTable, searchField, select, when } from "../components.js";
import { actionWords, actorWords, fits, placeOf, readSearch } from "../audit_words.js";
import { h } from "../dom.js";
import { dateTime } from "../format.js";
import { setQuery } from "../router.js";

export const title = "Audit log";

const PAGE = 50;
const LOOK_THROUGH_MAX = 2000;
const KINDS = [["", "Everything"], ["key", "Keys"], ["vault", "Vaults"], ["memories", "Memories"], ["provider_key", "Provider keys"], ["account", "Account"], ["dashboard", "Dashboard"]];
const HOUR_MS = 3_600_000;
const AGES = [["", "At any time"], ["1", "In the last hour"], ["24", "In the last day"], ["168", "In the last week"], ["720", "In the last 30 days"]];

export async function show(root, { query, signal }) {
  const wanted = { kind: query.get("kind") ?? "", hours: query.get("hours") ?? "", search: query.get("search") ?? "" };
  const body = page(root, { title, lead: "Every change to keys, vaults, providers and the account. Never a key, never a text." });
  const table = pagedTable({ caption: "Audit log", columns, limit: PAGE, signal, load: lookThrough, empty });
  const kinds = select(KINDS, { value: wanted.kind, "aria-label": "Of what", onchange: (event) => look({ kind: event.target.value }) });
  const ages = select(AGES, { value: wanted.hours, "aria-label": "When", onchange: (event) => look({ hours: event.target.value }) });
  const search = searchField({ label: "Search, for example key_12 or by operator", value: wanted.search, signal, onsearch: (text) => look({ search: text }) });
  body.append(h("div", { class: "toolbar" }, search, kinds, ages), table.element);

  function look(change) {
    Object.assign(wanted, change);
    setQuery(wanted);
    table.first();
  }

  /** The server chooses by kind, thing, actor and time. What is left are words of the sentences shown here: for those,
   * its answer is looked through page by page, until enough entries fit or enough were looked at. */
  async function lookThrough({ cursor, limit, signal: asked }) {
    const { subject, actor, words } = readSearch(wanted.search);
    const since = Number(wanted.hours) ? Date.now() - Number(wanted.hours) * HOUR_MS : null;
    const rows = [];
    let next = cursor;
    for (let seen = 0; seen < LOOK_THROUGH_MAX; ) {
      const asks = { action: wanted.kind, subject, actor, since, cursor: next, limit: words.length ? 500 : limit };
      const found = await api.get("v1/audit", { query: asks, signal: asked });
      rows.push(...found.data.filter((entry) => fits(entry, words)));
      seen += found.data.length;
      next = found.next_cursor;
      if (!next || rows.length >= limit) break;
    }
    return { rows, next };
  }

  function empty(more) {
    if (more) return emptyState({ title: `Nothing among the last ${LOOK_THROUGH_MAX} entries`, text: "“Next” looks at older ones." });
    if (wanted.kind || wanted.hours || wanted.search) return emptyState({ title: "Nothing found", text: "No entry fits the search." });
    return emptyState({ title: "Nothing has happened yet", text: "Make, change or delete a key, and it stands here." });
  }
}

function linked({ label, address }) {
  return address ? h("a", { href: address }, label) : label;
}

const columns = [
  { label: "When", cell: (entry) => h("span", { class: "audit-when" }, when(entry.at), h("span", { class: "muted" }, dateTime(entry.at))) },
  { label: "What", header: true, cell: (entry) => h("span", { class: "audit-what" }, actionWords(entry), isFinal(entry) && badge("for good", "danger")) },
  { label: "On", cell: (entry) => linked(placeOf(entry.target)) },
  { label: "By", from: "medium", cell: (entry) => linked(actorWords(entry.actor)) },
  { label: "Request", from: "wide", cell: (entry) => (entry.request_id ? h("code", { class: "muted clipped", title: entry.request_id }, entry.request_id) : "") },
];

function isFinal({ action }) {
  return action.endsWith(".deleted") || action.endsWith(".erased");
}
