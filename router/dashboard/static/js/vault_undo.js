/** Undo: delete what one request stored, or all that was stored since a time. Always counted first, and asked. */

import { api } from "./api.js";
import { h } from "./dom.js";
import { confirmDialog, field, formDialog, toast, toastError } from "./components.js";
import { dateTime, plural } from "./format.js";
import { isAbort } from "./live.js";

/** Count what a request stored, ask, and delete it. @param {() => void} [ondone] */
export async function undoRequest(vault, requestId, ondone) {
  await undo(vault, { request_id: requestId }, ["The request ", h("code", null, requestId), " stored "], ondone);
}

/** Ask since when, count, ask, and delete. */
export async function undoSince(vault, ondone) {
  const at = await formDialog({
    title: "Undo everything stored since…",
    intro: "Counts by when memories were stored, not by when they were said: this takes back a wrong import or a bad hour.",
    submitLabel: "Count them",
    fields: [{ name: "since", field: field("Stored since", h("input", { type: "datetime-local", class: "input", step: "1" })) }],
    submit: async ({ since }) => {
      const ms = new Date(since).getTime();
      if (!ms) throw Object.assign(new Error("Choose a day and a time."), { field: "since" });
      return ms;
    },
  });
  if (at !== undefined) await undo(vault, { since: at }, [`Since ${dateTime(at)} the vault has stored `], ondone);
}

async function undo(vault, what, sentence, ondone) {
  let matched;
  try {
    ({ matched } = await api.post("v1/memories/undo", { vault, body: { ...what, dry_run: true } }));
  } catch (error) {
    if (!isAbort(error)) toastError(error);
    return;
  }
  if (matched === 0) {
    toast("Nothing of it is in the vault any more.");
    return;
  }
  let deleted = 0;
  const done = await confirmDialog({
    title: "Undo?",
    text: h("p", null, sentence, h("strong", null, plural(matched, "memory", "memories")), matched === 1 ? ". It is deleted for good." : ". They are deleted for good."),
    confirm: `Delete ${plural(matched, "memory", "memories")}`,
    danger: true,
    work: async () => ({ deleted } = await api.post("v1/memories/undo", { vault, body: what })),
  });
  if (!done) return;
  toast(`${plural(deleted, "memory", "memories")} deleted.`);
  ondone?.();
}
