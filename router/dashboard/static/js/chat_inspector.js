/** What one chat of the playground did with memory: exactly what was injected, and what was stored, with links. */

import { api } from "./api.js";
import { h, replace } from "./dom.js";
import { badge, card, errorState, skeleton } from "./components.js";
import { milliseconds, plural } from "./format.js";
import { isAbort } from "./live.js";
import { labelOf, ROLES } from "./memory_parts.js";
import { href } from "./router.js";

const STATUSES = {
  ok: ["injected", "ok", "Memories were found and given to the model."],
  empty: ["nothing relevant", "neutral", "The vault was searched, and nothing in it answers this."],
  off: ["not read", "neutral", "Reading is off for this chat."],
  timeout: ["too late", "warning", "The search took longer than its budget; the chat went on without it."],
  error: ["failed", "danger", "The search failed; the chat went on without it. The server's log says why."],
  overloaded: ["busy", "warning", "The vault had too much to do; the chat went on without it."],
  not_stored: ["not stored", "danger", "The exchange is not known to be stored."],
};
const STORED = {
  off: "Storing is off for this chat.",
  pending: "Not handed over yet: the reply has not come to its end.",
  nothing_new: "Nothing: the vault knows all of it already.",
};

/** `{element, show(requestId), clear()}` @param {AbortSignal} signal */
export function chatInspector(signal) {
  const place = h("div", { class: "inspector" });
  const element = card({ title: "What memory did" }, place);
  let asking = new AbortController();
  signal.addEventListener("abort", () => asking.abort());

  function clear() {
    asking.abort();
    replace(place, h("p", { class: "muted" }, "Send a message: here stands what was taken out of the vault for it, word for word, and what went in."));
  }

  async function show(requestId) {
    asking.abort();
    asking = new AbortController();
    const { signal: mine } = asking;
    replace(place, skeleton(4));
    try {
      const found = await api.get(`requests/${encodeURIComponent(requestId)}`, { signal: mine });
      if (!mine.aborted) replace(place, parts(found));
    } catch (error) {
      if (!isAbort(error) && !mine.aborted) replace(place, errorState(error, () => show(requestId)));
    }
  }

  clear();
  return { element, show, clear };
}

function parts(found) {
  const [words, kind, sentence] = STATUSES[found.status] ?? [found.status, "neutral", ""];
  return [
    h("p", { class: "inspector-status" }, badge(words, kind), " ", sentence),
    h("dl", { class: "facts" }, fact("Vault", h("a", { href: href(`/vaults/${found.vault_id}`) }, found.vault_id)), fact("Mode", found.mode), fact("Search took", milliseconds(found.recall_ms)), fact("Request", h("a", { class: "mono", href: href(`/vaults/${found.vault_id}`, { request_id: found.request_id }) }, found.request_id))),
    h("h3", null, "Injected"),
    injected(found),
    h("h3", null, "Stored"),
    stored(found),
  ];
}

function fact(name, value) {
  return [h("dt", null, name), h("dd", null, value)];
}

function memoryLink(vault, id) {
  return h("a", { class: "memory-link mono", href: href(`/vaults/${vault}`, { memory: id }) }, id);
}

function injected({ block, memory_ids: ids, vault_id: vault }) {
  if (!block) return h("p", { class: "muted" }, "Nothing was injected.");
  return [
    h("p", null, `${plural(ids.length, "memory", "memories")}: `, h("span", { class: "memory-links" }, ids.map((id) => memoryLink(vault, id)))),
    h("pre", { class: "block", tabindex: "0", role: "region", "aria-label": "The injected text" }, block),
  ];
}

function stored({ messages_stored: messages, stored_status: status, vault_id: vault }) {
  if (messages.length === 0) return h("p", { class: "muted" }, STORED[status] ?? (status === "stored" ? "It was stored, and deleted since." : `Not stored: ${status.replaceAll("_", " ")}.`));
  return h("ul", { class: "stored" }, messages.map(({ id, role, content }) => h("li", null, h("div", { class: "stored-head" }, badge(labelOf(ROLES, role), role === "user" ? "accent" : "neutral"), memoryLink(vault, id)), h("p", { class: "stored-text" }, content))));
}
