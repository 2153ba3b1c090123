/** The sessions of a vault: how much each holds, and when it was spoken of first and last. */

import { api } from "./api.js";
import { h } from "./dom.js";
import { confirmDialog, emptyState, iconButton, pagedTable, toast, when } from "./components.js";
import { number } from "./format.js";
import { href } from "./router.js";

/** @param {{vault: string, signal: AbortSignal, onchange: () => void}} what */
export function sessions({ vault, signal, onchange }) {
  const list = pagedTable({
    caption: "Sessions",
    signal,
    columns: [
      { label: "Session", header: true, cell: (row) => h("a", { href: href(`/vaults/${vault}`, { session_id: row.session_id }) }, row.session_id) },
      { label: "Memories", end: true, cell: (row) => number(row.memories) },
      { label: "First", from: "medium", cell: (row) => when(row.first_at) },
      { label: "Last", cell: (row) => when(row.last_at) },
      { label: "Actions", hideLabel: true, end: true, cell: (row) => iconButton("trash", `Delete session ${row.session_id}`, () => forget(row)) },
    ],
    load: async ({ cursor, limit, signal: mine }) => {
      const page = await api.get("v1/sessions", { vault, signal: mine, query: { cursor, limit } });
      return { rows: page.data, next: page.next_cursor };
    },
    empty: () => emptyState({ title: "No sessions.", text: "A session is a tag on memories: send session_id, or the header X-Session-ID, with what you store." }),
  });

  async function forget({ session_id: session, memories }) {
    const done = await confirmDialog({
      title: "Delete this session?",
      text: h("p", null, "All ", number(memories), " memories of the session ", h("strong", null, session), " are deleted for good. The rest of the vault stays."),
      confirm: "Delete session",
      danger: true,
      work: () => api.delete("v1/memory", { vault, query: { session_id: session } }),
    });
    if (!done) return;
    toast("The session is deleted.");
    list.reload();
    onchange();
  }

  return list.element;
}
