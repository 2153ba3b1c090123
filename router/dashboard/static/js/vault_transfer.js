/** A vault in and out: importing JSON lines or an export of ours, and downloading the vault. */

import { api } from "./api.js";
import { h, replace } from "./dom.js";
import { button, busyWhile, card, checkbox, codeBlock, errorState, field, notice, progress, toast } from "./components.js";
import { bytes, number, percent, plural } from "./format.js";
import { Import, isExport } from "./import_slices.js";
import { isAbort } from "./live.js";
import { href } from "./router.js";

const WHOLE_BYTES_MAX = 60 * 1024 * 1024;
const EXAMPLE = '{"role": "user", "content": "My sister lives in Oslo.", "timestamp": 1780000000000, "session_id": "chat-1", "id": "m-1"}';

/** @param {{vault: string, signal: AbortSignal, onchange: () => void}} what */
export function transfer(what) {
  return h("div", { class: "grid-2" }, importCard(what), exportCard(what));
}

function importCard({ vault, signal, onchange }) {
  const input = h("input", { type: "file", class: "input", accept: ".jsonl,.ndjson,.json,.txt,application/x-ndjson,application/jsonl,text/plain" });
  const chooser = field("File", input, { hint: "JSON lines, or an export of a vault. What the vault knows already adds nothing." });
  const start = button("Import", { kind: "primary", icon: "upload", type: "submit" });
  const outcome = h("div", { class: "import-outcome" });
  const form = h("form", { class: "form", onsubmit: begin }, chooser.element, h("div", null, start));
  let running = null;
  signal.addEventListener("abort", () => running?.abort());
  // Leaving the page half-way is no harm, but nobody should do it unknowingly.
  window.addEventListener("beforeunload", (event) => running && event.preventDefault(), { signal });

  async function begin(event) {
    event.preventDefault();
    const [file] = input.files;
    chooser.setError(file ? "" : "Choose a file.");
    if (!file) return;
    if (await isExport(file)) importWhole(file);
    else importSlices(new Import(file, vault));
  }

  async function during(work, stop) {
    running = new AbortController();
    start.disabled = input.disabled = true;
    try {
      await work(running.signal);
    } catch (error) {
      stop(error);
    } finally {
      running = null;
      start.disabled = input.disabled = false;
      onchange();
    }
  }

  function importSlices(work) {
    const bar = progress(`Importing ${work.file.name}`);
    const draw = () => bar.set(work.offset, work.file.size, `${percent(work.file.size ? work.offset / work.file.size : 1)}: ${plural(work.line, "line")}, ${number(work.stored)} stored, ${number(work.duplicates)} known already`);
    const go = () => {
      const cancel = button("Cancel", { icon: "stop", onclick: () => running?.abort() });
      replace(outcome, bar.element, cancel);
      draw();
      during(
        async (stopping) => {
          await work.run({ signal: stopping, onprogress: draw });
          replace(outcome, done(vault, work.stored, work.duplicates));
        },
        (error) => {
          if (signal.aborted) return;
          const reached = `${plural(work.line, "line")} stored so far (${number(work.stored)} new).`;
          const again = button("Go on from there", { icon: "play", onclick: go });
          replace(outcome, isAbort(error) ? notice("info", h("p", null, "Stopped. ", reached), again) : [errorState(error), h("p", null, reached), again]);
        },
      );
    };
    go();
  }

  /** An export is verified as a whole, so it goes in one piece. */
  function importWhole(file) {
    if (file.size > WHOLE_BYTES_MAX) {
      replace(outcome, notice("warning", h("p", null, `An export of more than ${bytes(WHOLE_BYTES_MAX)} goes in on the command line:`), codeBlock(`memoryrouter import ${file.name} --help`)));
      return;
    }
    const bar = progress(`Importing ${file.name}`);
    replace(outcome, bar.element, button("Cancel", { icon: "stop", onclick: () => running?.abort() }));
    const onProgress = (sent, total) => bar.set(sent, total, sent < total ? `${percent(sent / total)} of ${bytes(total)} sent` : "Sent; the server verifies and stores it.");
    onProgress(0, file.size);
    during(
      async (stopping) => {
        const { stats } = await api.upload("v1/memory/import", { vault, body: file, type: "application/x-ndjson", signal: stopping, onProgress });
        replace(outcome, done(vault, stats.stored, stats.duplicates));
      },
      (error) => {
        if (!signal.aborted) replace(outcome, isAbort(error) ? notice("info", h("p", null, "Stopped.")) : errorState(error));
      },
    );
  }

  return card(
    { title: "Import", note: "One JSON object a line; only content is needed." },
    form,
    outcome,
    h("details", { class: "import-help" }, h("summary", null, "What a line looks like"), codeBlock(EXAMPLE, { name: "A line" })),
  );
}

function done(vault, stored, duplicates) {
  const known = duplicates ? ` ${plural(duplicates, "memory was", "memories were")} known already.` : "";
  toast(`${plural(stored, "memory", "memories")} imported.`);
  return notice("info", h("p", null, `${plural(stored, "memory", "memories")} imported.${known} They are found by their words at once; their meaning follows. `, h("a", { href: href(`/vaults/${vault}`) }, "Show the timeline")));
}

function exportCard({ vault, signal }) {
  const vectors = checkbox("With embeddings, so that an import elsewhere need not compute them again (several times larger)");
  const problem = h("div");
  const download = button("Download", { icon: "download", onclick: () => busyWhile(download, run) });
  async function run() {
    replace(problem);
    try {
      const data = await api.get("v1/memory/export", { vault, signal, as: "blob", query: { vectors: vectors.control.checked } });
      saveAs(data, `${vault}-${new Date().toISOString().slice(0, 10)}.jsonl`);
      toast(`${bytes(data.size)} downloaded.`);
    } catch (error) {
      if (!isAbort(error)) replace(problem, errorState(error, run));
    }
  }
  return card({ title: "Export", note: "All memories as JSON lines with a checksum." }, h("div", { class: "form" }, vectors.element, h("div", null, download), problem));
}

/** Hand a file to the browser's downloads. @param {Blob} data */
export function saveAs(data, name) {
  const address = URL.createObjectURL(data);
  const link = h("a", { href: address, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  window.setTimeout(() => URL.revokeObjectURL(address), 60_000);
}
