/** One vault: its figures, its timeline, search with reasons, sessions, import and export, and its end. */

import { api } from "../api.js";
import { button, card, confirmDialog, emptyState, errorState, field, linkButton, page, stat, tabs, textInput, toast, toastError } from "../components.js";
import { h, replace } from "../dom.js";
import { bytes, date, dateTime, number, percent, plural, short, time, UNKNOWN } from "../format.js";
import { isAbort, poll } from "../live.js";
import { memoryItem } from "../memory_parts.js";
import { href, navigate, setQuery } from "../router.js";
import { vaultSearch } from "../vault_search.js";
import { sessions } from "../vault_sessions.js";
import { timeline } from "../vault_timeline.js";
import { transfer } from "../vault_transfer.js";

export const title = "Vault";

const EMBEDDING_POLL_MS = 2000;

/** Show it. */
export async function show(root, { params, query, signal }) {
  const vault = params.id;
  const back = { href: href("/vaults"), label: "Vaults" };
  let record;
  try {
    record = await api.get(`v1/vaults/${encodeURIComponent(vault)}`, { signal });
  } catch (error) {
    if (isAbort(error)) return;
    replace(page(root, { title: vault, back }), errorState(error));
    return;
  }
  document.title = `${vault} · MemoryRouter`;
  const figures = vaultFigures(vault, record, signal);
  const ask = linkButton("Chat with it", href("/playground", { vault }), { icon: "playground" });
  const body = page(root, { title: vault, back, lead: leadOf(record), actions: [ask] });
  if (query.get("memory")) {
    replace(body, figures.element, await oneMemory(vault, query.get("memory"), signal));
    return;
  }
  const what = { vault, query, signal, onchange: figures.reload, firstSteps: () => firstSteps(view) };
  let last = query.get("tab") ?? "timeline";
  const view = tabs(
    [
      { id: "timeline", label: "Timeline", panel: () => timeline(what).element },
      { id: "search", label: "Search", panel: () => vaultSearch(what) },
      { id: "sessions", label: "Sessions", panel: () => sessions(what) },
      { id: "transfer", label: "Import and export", panel: () => transfer(what) },
      { id: "manage", label: "Manage", panel: () => manage(what, record) },
    ],
    {
      label: "Parts of the vault",
      selected: last,
      onselect: (tab) => {
        if (tab !== last) setQuery({ tab });
        last = tab;
      },
    },
  );
  replace(body, figures.element, view.element);
}

function leadOf(record) {
  const names = (record.keys ?? []).map(({ name }) => name).join(", ");
  const opened = record.live_keys === 0 ? "No key opens it" : names ? `Opened by ${names}` : `Opened by ${plural(record.live_keys, "key")}`;
  return `${opened}. Made ${dateTime(record.created_at)}.`;
}

/** The vault in numbers; asked again while memories wait for their embeddings. */
function vaultFigures(vault, record, signal) {
  const parts = {
    memories: stat("Memories"),
    sessions: stat("Sessions"),
    tokens: stat("Tokens"),
    size: stat("On disk"),
    oldest: stat("Oldest"),
    newest: stat("Newest"),
  };
  const element = h("dl", { class: "stats stats-6" }, Object.values(parts).map((part) => part.element));
  async function load() {
    const counted = await api.get("v1/memory/stats", { vault, signal });
    const { embedding } = counted;
    parts.memories.set(number(counted.memories), embedding.pending ? `${percent(embedding.progress)} embedded` : counted.memories ? "all embedded" : "");
    parts.sessions.set(number(counted.sessions));
    parts.tokens.set(short(counted.total_tokens), counted.flagged ? `${plural(counted.flagged, "memory looks", "memories look")} planted` : "");
    parts.size.set(bytes(record.bytes));
    parts.oldest.set(...momentOf(counted.oldest));
    parts.newest.set(...momentOf(counted.newest));
    return counted.pending;
  }
  let waiting = new AbortController();
  function reload() {
    waiting.abort();
    waiting = new AbortController();
    const mine = AbortSignal.any([signal, waiting.signal]);
    const own = waiting;
    const round = async () => {
      const pending = await load().catch((error) => (isAbort(error) ? 1 : (toastError(error), 0)));
      if (!pending) own.abort();
    };
    poll(round, EMBEDDING_POLL_MS, mine);
  }
  async function refresh() {
    record = await api.get(`v1/vaults/${vault}`, { signal }).catch(() => record);
    reload();
  }
  reload();
  return { element, reload: refresh };
}

function momentOf(at) {
  return at ? [date(at), time(at)] : [UNKNOWN, ""];
}

async function oneMemory(vault, id, signal) {
  const all = linkButton("Show the whole timeline", href(`/vaults/${vault}`), { small: true, icon: "left" });
  try {
    const memory = await api.get(`v1/memories/${encodeURIComponent(id)}`, { vault, signal });
    const facts = h("p", { class: "muted" }, `Said ${dateTime(memory.timestamp)}, stored ${dateTime(memory.stored_at)}, ${plural(memory.tokens, "token")}`, memory.request_id && [", by request ", h("a", { href: href(`/vaults/${vault}`, { request_id: memory.request_id }) }, memory.request_id)]);
    const item = memoryItem(memory, { vault, ongone: () => navigate(`/vaults/${vault}`) });
    return card({ title: "One memory", actions: [all] }, h("ol", { class: "memories" }, item), facts);
  } catch (error) {
    return card({ title: "One memory", actions: [all] }, errorState(error));
  }
}

function firstSteps(view) {
  return emptyState({
    title: "This vault is empty.",
    text: "Import what you have, chat with it in the playground, or store something with the vault's own key:",
    code: `curl ${window.location.origin}/v1/memories -H "Authorization: Bearer $MEMORYROUTER_API_KEY" \\\n  -H "Content-Type: application/json" -d '{"content": "My sister lives in Oslo."}'`,
    actions: [button("Import a file", { icon: "upload", onclick: () => view.select("transfer") })],
  });
}

function manage({ vault, signal }, record) {
  return h("div", { class: "parts" }, retentionCard(vault, record, signal), endCard(vault, record));
}

function retentionCard(vault, record, signal) {
  const days = textInput({ inputmode: "numeric", value: record.retention_days ?? "" });
  const box = field("Days", days, { hint: "Memories are deleted that many days after they were said. Empty: as the account or the server says.", optional: true });
  const form = h("form", { class: "form narrow", onsubmit: save }, box.element, h("div", null, button("Save", { type: "submit" })));
  async function save(event) {
    event.preventDefault();
    const text = days.value.trim();
    const value = text === "" ? null : Number(text);
    box.setError(value === null || (Number.isInteger(value) && value > 0) ? "" : "A whole number of days, 1 or more.");
    if (days.getAttribute("aria-invalid")) return;
    try {
      await api.patch(`v1/vaults/${vault}`, { body: { retention_days: value }, signal });
      toast(value === null ? "The vault has no retention of its own." : `Memories are kept for ${plural(value, "day")}.`);
    } catch (error) {
      if (!isAbort(error)) box.setError(error.message);
    }
  }
  return card({ title: "Retention" }, form);
}

function endCard(vault, record) {
  const keyless = record.live_keys === 0;
  const text = keyless
    ? "No key opens this vault any more. Deleting it destroys the key that its memories are sealed with: they cannot be read again, by nobody."
    : "Everything in it is shredded: the key that its memories are sealed with is destroyed. Its Memory Key stays valid and gets a new, empty vault with another number. To end the key as well, delete it on the keys screen.";
  const keys = !keyless && linkButton("Keys", href("/keys"), { icon: "keys" });
  return card({ title: "Delete", class: "card-danger" }, h("p", null, text), h("div", { class: "button-row" }, button("Delete this vault", { kind: "danger", icon: "trash", onclick: end }), keys));

  async function end() {
    const done = await confirmDialog({
      title: `Delete ${vault}?`,
      text: h("p", null, `All ${plural(record.memories ?? 0, "memory", "memories")} in it are deleted for good. There is no way back but an export.`),
      confirm: "Delete vault",
      danger: true,
      typed: vault,
      work: () => (keyless ? api.delete(`v1/vaults/${vault}`) : api.delete("v1/memory", { vault })),
    });
    if (!done) return;
    toast(`${vault} is deleted.`);
    navigate("/vaults");
  }
}
