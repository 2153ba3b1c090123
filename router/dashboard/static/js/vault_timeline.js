/**
 * A vault's timeline: memories in the order of time, filtered by the server, a page after the other; and what can be
 * done to many of them at once. Keeps its filters in the address.
 */

import { api } from "./api.js";
import { h, replace, setText } from "./dom.js";
import { button, checkbox, confirmDialog, emptyState, errorState, field, searchField, select, skeleton, textInput, toast } from "./components.js";
import { number, plural } from "./format.js";
import { debounce, isAbort } from "./live.js";
import { localTime, memoryItem, ROLES, SOURCES } from "./memory_parts.js";
import { setQuery } from "./router.js";
import { undoSince } from "./vault_undo.js";

const PAGE = 50;
const TYPING_MS = 300;
const FILTERS = ["q", "session_id", "role", "source", "since", "until", "request_id", "flagged"];

/**
 * @param {{vault: string, query: URLSearchParams, signal: AbortSignal, onchange: () => void, firstSteps: () => Node}} what
 *   `onchange` is told when memories were deleted; `firstSteps` is shown where the vault is empty
 */
export function timeline({ vault, query, signal, onchange, firstSteps }) {
  const filters = Object.fromEntries(FILTERS.map((name) => [name, query.get(name) ?? ""]));
  const chosen = new Set();
  const list = h("ol", { class: "memories" });
  const state = h("div", { class: "list-state" });
  const older = button("Show older memories", { icon: "refresh", onclick: () => loadMore() });
  const foot = h("div", { class: "list-foot", hidden: true }, older);
  const bulk = bulkBar();
  const bar = filterBar();
  let cursor = null;
  let asking = new AbortController();
  signal.addEventListener("abort", () => asking.abort());
  const selection = {
    has: (id) => chosen.has(id),
    set: (id, on) => {
      if (on) chosen.add(id);
      else chosen.delete(id);
      bulk.update();
    },
  };

  /** What the server is asked for: inputs hold local time, it wants milliseconds. */
  function wanted() {
    const asked = { ...filters };
    for (const name of ["since", "until"]) asked[name] = filters[name] ? new Date(filters[name]).getTime() : "";
    return asked;
  }

  const isFiltered = () => FILTERS.some((name) => filters[name] !== "");

  async function reload() {
    asking.abort();
    asking = new AbortController();
    chosen.clear();
    bulk.update();
    cursor = null;
    replace(list);
    replace(state, skeleton(6));
    foot.hidden = true;
    await loadMore();
  }

  async function loadMore() {
    const { signal: mine } = asking;
    older.disabled = true;
    try {
      let page;
      do {
        // A page may be empty and not the last: the server looks at so many memories at a time.
        page = await api.get("v1/memories", { vault, signal: mine, query: { ...wanted(), limit: PAGE, cursor } });
        cursor = page.next_cursor;
      } while (page.data.length === 0 && cursor);
      if (mine.aborted) return;
      list.append(...page.data.map((memory) => memoryItem(memory, { vault, selection, ongone: gone })));
      show();
    } catch (error) {
      if (isAbort(error) || mine.aborted) return;
      replace(state, errorState(error, list.childElementCount ? loadMore : reload));
    } finally {
      older.disabled = false;
    }
  }

  function show() {
    foot.hidden = !cursor;
    bulk.update();
    if (list.childElementCount) replace(state);
    else if (isFiltered()) replace(state, emptyState({ title: "No memory matches these filters.", actions: [button("Clear filters", { onclick: clear })] }));
    else replace(state, firstSteps());
  }

  function gone() {
    reload();
    onchange();
  }

  function clear() {
    for (const name of FILTERS) filters[name] = "";
    bar.fill();
    apply();
  }

  function apply() {
    setQuery({ tab: "timeline", ...filters });
    bar.update();
    reload();
  }

  function filterBar() {
    const later = debounce(apply, TYPING_MS, signal);
    const bind = (name, control) => {
      control.value = filters[name];
      control.addEventListener("input", () => {
        filters[name] = control.value.trim();
        later();
      });
      return control;
    };
    const words = searchField({ label: "Words in it", value: filters.q, signal, waitMs: TYPING_MS, onsearch: (text) => ((filters.q = text), apply()) });
    const any = (list) => [["", "Any"], ...list];
    const flagged = checkbox("Looks planted", { checked: filters.flagged === "true", onchange: (event) => ((filters.flagged = event.target.checked ? "true" : ""), apply()) });
    const controls = {
      session_id: bind("session_id", textInput()),
      role: bind("role", select(any(ROLES))),
      source: bind("source", select(any(SOURCES))),
      since: bind("since", h("input", { type: "datetime-local", class: "input", max: localTime(Date.now() + 86_400_000).slice(0, 16) })),
      until: bind("until", h("input", { type: "datetime-local", class: "input" })),
      request_id: bind("request_id", textInput({ placeholder: "req_…" })),
    };
    const labels = { session_id: "Session", role: "Said by", source: "Stored by", since: "Said from", until: "Said before", request_id: "Request" };
    const inUse = h("span", { class: "muted" });
    const reset = button("Clear filters", { small: true, kind: "quiet", onclick: clear });
    const details = h(
      "details",
      { class: "filters" },
      h("summary", null, "Filters ", inUse),
      h("div", { class: "filter-grid" }, Object.entries(controls).map(([name, control]) => field(labels[name], control).element), h("div", { class: "field" }, flagged.element)),
    );
    const element = h("div", { class: "timeline-bar" }, h("div", { class: "toolbar" }, words, reset, button("Undo…", { icon: "undo", class: "at-end", onclick: () => undoSince(vault, gone) })), details);
    const update = () => {
      const count = FILTERS.filter((name) => name !== "q" && filters[name]).length;
      setText(inUse, count ? `(${count} in use)` : "");
      reset.hidden = !isFiltered();
    };
    const fill = () => {
      words.querySelector("input").value = filters.q;
      flagged.control.checked = filters.flagged === "true";
      for (const [name, control] of Object.entries(controls)) control.value = filters[name];
    };
    details.open = FILTERS.some((name) => name !== "q" && filters[name]);
    return { element, fill, update };
  }

  function bulkBar() {
    const said = h("span", { role: "status" });
    const all = button("Select all shown", { small: true, kind: "quiet", onclick: () => selectShown(true) });
    const none = button("Select none", { small: true, kind: "quiet", onclick: () => selectShown(false) });
    const some = button("Delete selected", { small: true, kind: "danger", icon: "trash", onclick: deleteChosen });
    const every = button("Delete all that match", { small: true, kind: "danger", icon: "trash", onclick: deleteMatching });
    const element = h("div", { class: "bulk", hidden: true }, said, all, none, some, every);
    function update() {
      const shown = list.childElementCount;
      element.hidden = shown === 0;
      setText(said, chosen.size ? `${number(chosen.size)} selected` : `${plural(shown, "memory", "memories")} shown${cursor ? ", there are older ones" : ""}`);
      none.hidden = some.hidden = chosen.size === 0;
      every.hidden = !isFiltered() || chosen.size > 0;
    }
    return { element, update };
  }

  function selectShown(on) {
    for (const item of list.children) {
      const box = item.querySelector(".memory-check");
      box.checked = on;
      selection.set(item.dataset.memory, on);
    }
  }

  async function deleteChosen() {
    const ids = [...chosen];
    let deleted = 0;
    const done = await confirmDialog({
      title: `Delete ${plural(ids.length, "memory", "memories")}?`,
      text: h("p", null, "They are deleted for good."),
      confirm: `Delete ${plural(ids.length, "memory", "memories")}`,
      danger: true,
      work: async () => {
        for (const id of ids) {
          if (signal.aborted) return;
          await api.delete(`v1/memories/${id}`, { vault }).catch(ignoreMissing);
          chosen.delete(id);
          deleted += 1;
        }
      },
    });
    if (deleted) gone();
    if (done) toast(`${plural(deleted, "memory", "memories")} deleted.`);
  }

  async function deleteMatching() {
    let matched;
    try {
      ({ matched } = await api.delete("v1/memories", { vault, signal, query: { ...wanted(), dry_run: true } }));
    } catch (error) {
      if (!isAbort(error)) replace(state, errorState(error, reload));
      return;
    }
    let deleted = 0;
    const done = await confirmDialog({
      title: `Delete ${plural(matched, "memory", "memories")}?`,
      text: h("p", null, "All that match the filters, also those further down, are deleted for good."),
      confirm: `Delete ${plural(matched, "memory", "memories")}`,
      danger: true,
      work: async () => ({ deleted } = await api.delete("v1/memories", { vault, query: wanted() })),
    });
    if (!done) return;
    toast(`${plural(deleted, "memory", "memories")} deleted.`);
    gone();
  }

  bar.update();
  reload();
  return { element: h("div", { class: "timeline" }, bar.element, bulk.element, list, state, foot), reload };
}

/** Somebody else has deleted it meanwhile: that is what was wanted. */
function ignoreMissing(error) {
  if (error.status !== 404) throw error;
}
