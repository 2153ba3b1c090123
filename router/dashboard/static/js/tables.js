/**
 * Lists. A paged one asks the server for each page, and shows that it loads, is empty, or could not be had.
 */

import { findFocus, h, hidden, replace, setText } from "./dom.js";
import { button, emptyState, errorState, skeleton } from "./components.js";
import { number } from "./format.js";
import { isAbort } from "./live.js";

/**
 * @template Row
 * @typedef {Object} Column
 * @property {string} label
 * @property {(row: Row) => Node|string|number|null} cell
 * @property {boolean} [end] numbers: aligned at the end
 * @property {boolean} [hideLabel] the label is for screen readers only
 * @property {boolean} [header] the cell names its row
 * @property {"wide"|"medium"} [from] shown from this width on only
 *
 * A cell's button with `dataset: {focus: id}` keeps the focus when the list is drawn again, and gets it back from dialogs.
 */

/** A table of rows that are at hand. @param {{caption: string, columns: Column[], rows: Array, rowClass?: Function}} what */
export function simpleTable({ caption, columns, rows, rowClass }) {
  const body = h("tbody", null, rows.map((row) => rowOf(columns, row, rowClass)));
  return wrap(caption, tableOf(caption, columns, body));
}

/** Draw a table again only where it says something else, so that a reader's selection and focus stay. `none`: said of no rows. */
export function refill(place, what) {
  const now = JSON.stringify(what.rows);
  if (place.dataset.shown === now) return;
  place.dataset.shown = now;
  const scrolled = place.querySelector(".table-wrap");
  const focused = scrolled !== null && scrolled === document.activeElement;
  const fresh = what.rows.length ? simpleTable(what) : h("p", { class: "muted" }, what.none ?? "Nothing to tell yet.");
  replace(place, fresh);
  if (focused) fresh.focus();
}

function tableOf(caption, columns, body) {
  const head = columns.map((column) => h("th", { scope: "col", class: classOf(column) }, column.hideLabel ? hidden(column.label) : column.label));
  return h("table", { class: "table" }, h("caption", { class: "visually-hidden" }, caption), h("thead", null, h("tr", null, head)), body);
}

function classOf(column) {
  return [column.end && "is-end", column.from && `from-${column.from}`, column.class];
}

function rowOf(columns, row, rowClass) {
  const cells = columns.map((column) => h(column.header ? "th" : "td", { scope: column.header ? "row" : null, class: classOf(column) }, column.cell(row)));
  return h("tr", { class: rowClass?.(row) }, cells);
}

function wrap(caption, table) {
  return h("div", { class: "table-wrap", role: "region", "aria-label": `${caption}, as a table`, tabindex: "0" }, table);
}

/**
 * A list whose pages come from the server: `{element, reload(), first()}`.
 * @param {Object} what
 * @param {string} what.caption
 * @param {Column[]} what.columns
 * @param {(page: {cursor: string|null, limit: number, signal: AbortSignal}) => Promise<{rows: Array, next: string|null}>} what.load
 * @param {(more: boolean) => Node} [what.empty] shown where a page has no rows; `more`: later pages may have some
 * @param {AbortSignal} what.signal ends all work
 * @param {number} [what.limit]
 * @param {Function} [what.rowClass]
 */
export function pagedTable({ caption, columns, load, empty, signal, limit = 50, rowClass }) {
  let pages = [{ cursor: null, start: 0 }]; // up to the one that is shown; `start`: rows before it
  let asking = null;
  const place = h("div", { class: "list-body" });
  const position = h("p", { class: "pager-position", role: "status" });
  const newer = button("Previous", { icon: "left", small: true, onclick: () => show(pages.slice(0, -1)) });
  const older = button("Next", { small: true, class: "pager-next" });
  const pager = h("nav", { class: "pager", "aria-label": `Pages: ${caption}`, hidden: true }, position, newer, older);
  const element = h("div", { class: "list" }, place, pager);
  signal.addEventListener("abort", () => asking?.abort());

  async function show(wanted, { quiet = false } = {}) {
    asking?.abort();
    const mine = (asking = new AbortController());
    place.setAttribute("aria-busy", "true");
    // What is known stays in sight, dimmed, so that nothing jumps; only the first time there is nothing.
    if (!place.hasChildNodes() || (!quiet && place.querySelector(".error-state"))) replace(place, skeleton(6));
    try {
      const { rows, next } = await load({ cursor: wanted.at(-1).cursor, limit, signal: mine.signal });
      if (mine.signal.aborted) return;
      pages = wanted;
      draw(rows, next);
    } catch (error) {
      if (isAbort(error) || mine.signal.aborted) return;
      pager.hidden = true;
      replace(place, errorState(error, () => show(wanted)));
    } finally {
      if (asking === mine) place.removeAttribute("aria-busy");
    }
  }

  function draw(rows, next) {
    const start = pages.at(-1).start;
    if (rows.length === 0 && !next && pages.length > 1) {
      show(pages.slice(0, -1)); // its last row was deleted
      return;
    }
    const focused = place.contains(document.activeElement) ? document.activeElement.dataset.focus : undefined;
    if (rows.length === 0) replace(place, empty ? empty(Boolean(next)) : emptyState({ title: "Nothing here." }));
    else replace(place, wrap(caption, tableOf(caption, columns, h("tbody", null, rows.map((row) => rowOf(columns, row, rowClass))))));
    findFocus(focused)?.focus(); // what was drawn again is where it was
    const end = start + rows.length;
    pager.hidden = !next && pages.length === 1 && rows.length < 10;
    setText(position, rows.length ? `${number(start + 1)}–${number(end)}${next ? "" : ` of ${number(end)}`}` : "");
    newer.disabled = pages.length === 1;
    older.disabled = !next;
    older.onclick = () => show([...pages, { cursor: next, start: end }]);
  }

  show(pages);
  return { element, reload: () => show(pages, { quiet: true }), first: () => show([{ cursor: null, start: 0 }]) };
}
