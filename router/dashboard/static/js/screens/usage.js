/** Usage: what the account, or one of its keys, has used, by day, by model and by key; and the same as CSV. */

import { api } from "../api.js";
import { button, busyWhile, card, emptyState, errorState, field, linkButton, page, select, simpleTable, skeleton, stat, textInput, toastError } from "../components.js";
import { barChart, meter, stackedBars } from "../charts.js";
import { h, replace } from "../dom.js";
import { decimal, milliseconds, number, percent, short } from "../format.js";
import { debounce, isAbort } from "../live.js";
import { href, setQuery } from "../router.js";
import { saveAs } from "../vault_transfer.js";

export const title = "Usage";

const DAY_MS = 86_400_000;
const RANGES = [
  ["7", "Last 7 days"],
  ["30", "Last 30 days"],
  ["90", "Last 90 days"],
  ["365", "Last 365 days"],
  ["own", "From … to …"],
];
const ROWS = 10;
const TYPING_MS = 400;
const dayLabel = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short", timeZone: "UTC" });

/** Show it. */
export async function show(root, { query, signal }) {
  const today = isoDay(Date.now());
  const state = { range: query.get("range") ?? "30", start: query.get("start") ?? isoDay(Date.now() - 29 * DAY_MS), end: query.get("end") ?? today, key_id: query.get("key_id") ?? "" };
  const place = h("div", { class: "parts" }, skeleton(8));
  const csv = button("Download CSV", { icon: "download", onclick: () => busyWhile(csv, download) });
  const body = page(root, { title: "Usage", lead: "Days are UTC. Every request counts once, with whatever it was answered.", actions: [csv] });
  const controls = filterBar(state, today, signal, load);
  replace(body, controls, place);
  let asking = new AbortController();
  signal.addEventListener("abort", () => asking.abort());
  await load();

  function asked() {
    const key_id = /^\d+$/.test(state.key_id) ? `key_${state.key_id}` : state.key_id;
    if (state.range === "own") return { start: state.start, end: state.end, key_id };
    return { start: isoDay(Date.now() - (Number(state.range) - 1) * DAY_MS), end: today, key_id };
  }

  async function load() {
    asking.abort();
    asking = new AbortController();
    const { signal: mine } = asking;
    setQuery(state.range === "own" ? state : { range: state.range, key_id: state.key_id });
    place.setAttribute("aria-busy", "true");
    try {
      const used = await api.get("v1/account/usage", { query: asked(), signal: mine });
      if (!mine.aborted) draw(used, mine);
    } catch (error) {
      if (!isAbort(error) && !mine.aborted) replace(place, errorState(error, load));
    } finally {
      if (!mine.aborted) place.removeAttribute("aria-busy");
    }
  }

  function draw(used, mine) {
    if (used.total_requests === 0) {
      replace(place, nothingYet(state.key_id));
      return;
    }
    replace(place, tiles(used), charts(used), byModel(used), state.key_id ? null : byKey(used, mine));
  }

  async function download() {
    try {
      const { start, end } = asked();
      saveAs(await api.get("v1/account/usage", { query: { ...asked(), format: "csv" }, signal, as: "blob" }), `usage-${start}-${end}.csv`);
    } catch (error) {
      if (!isAbort(error)) toastError(error);
    }
  }
}

function filterBar(state, today, signal, load) {
  const later = debounce(load, TYPING_MS, signal);
  const bind = (name, control) => {
    control.value = state[name];
    control.addEventListener("input", () => {
      state[name] = control.value.trim();
      own.hidden = state.range !== "own";
      if (!state.start || !state.end) return;
      if (control.type === "text") later();
      else load();
    });
    return control;
  };
  const own = h("div", { class: "range", hidden: state.range !== "own" }, field("From", bind("start", h("input", { type: "date", class: "input", max: today }))).element, field("To", bind("end", h("input", { type: "date", class: "input", max: today }))).element);
  return h("div", { class: "toolbar usage-bar" }, field("Days", bind("range", select(RANGES))).element, own, field("Key", bind("key_id", textInput({ placeholder: "All keys, or key_12" })), { optional: true }).element);
}

function nothingYet(keyId) {
  return emptyState({
    title: keyId ? "This key has used nothing in these days." : "Nothing was used in these days.",
    text: "Point an OpenAI client at this server, or try the playground:",
    code: `curl ${window.location.origin}/v1/chat/completions -H "Authorization: Bearer $MEMORYROUTER_API_KEY" \\\n  -H "Content-Type: application/json" \\\n  -d '{"model": "local/recall", "messages": [{"role": "user", "content": "Hello"}]}'`,
    actions: [linkButton("Playground", href("/playground"), { icon: "playground" })],
  });
}

function tiles(used) {
  const { summary } = used;
  const figures = [
    ["Requests", number(used.total_requests), used.total_errors ? `${percent(used.total_errors / used.total_requests)} failed` : "none failed"],
    ["Memories stored", number(used.total_memories_stored)],
    ["Memory found", short(used.total_tokens_retrieved), "tokens"],
    ["Memory injected", short(used.total_tokens_injected), "tokens"],
    ["Billed", short(used.total_tokens_billed), `memory tokens × ${decimal(used.billing_multiplier)}`],
    ["Models read", short(used.total_input_tokens), "tokens"],
    ["Models wrote", short(used.total_output_tokens), "tokens"],
    ["Added latency", milliseconds(summary.avgLatencyMrMs), "average of a request"],
  ];
  return h(
    "dl",
    { class: "stats stats-4" },
    figures.map(([label, value, note]) => {
      const one = stat(label, { note });
      one.set(value);
      return one.element;
    }),
  );
}

function charts(used) {
  const days = daysOf(used.period);
  const known = new Map(used.daily.map((day) => [day.date, day]));
  const series = (name, value) => ({ name, values: days.map((day) => (known.has(day) ? value(known.get(day)) : 0)) });
  const labels = days.map((day) => dayLabel.format(new Date(day)));
  const common = { labels, axis: "Day", height: 180 };
  const requests = stackedBars({ ...common, title: "Requests by day", format: number, series: [series("Answered", (day) => day.requestCount - day.errorCount), { ...series("Failed", (day) => day.errorCount), colour: 2 }] });
  const memory = barChart({ ...common, title: "Tokens of memory by day", series: [series("Found", (day) => day.memoryTokensRetrieved), { ...series("Injected", (day) => day.memoryTokensInjected), colour: 3 }] });
  const models = stackedBars({ ...common, title: "Tokens of models by day", series: [series("Read", (day) => day.inputTokens), { ...series("Written", (day) => day.outputTokens), colour: 4 }] });
  const stored = barChart({ ...common, title: "Memories stored by day", format: number, series: [{ ...series("Memories", (day) => day.memoriesStored), colour: 5 }] });
  return h("div", { class: "chart-grid" }, card({ title: "Requests" }, requests.element), card({ title: "Memories stored" }, stored.element), card({ title: "Tokens of memory" }, memory.element), card({ title: "Tokens of models" }, models.element));
}

function daysOf({ start, end }) {
  const days = [];
  for (let at = Date.parse(start); at <= Date.parse(end); at += DAY_MS) days.push(isoDay(at));
  return days;
}

function byModel(used) {
  return breakdown("By model", "Model", used.by_model, (name) => (name === "none" ? h("span", { class: "muted" }, "no model") : name));
}

/** The busiest keys, named once their names are known. */
function byKey(used, signal) {
  const names = new Map();
  const cell = (id) => {
    const name = h("span", { class: "muted" });
    if (!names.has(id)) names.set(id, api.get(`v1/keys/${id}`, { signal }).then((key) => key.name, () => ""));
    names.get(id).then((text) => replace(name, text));
    return h("span", { class: "key-name" }, h("a", { href: href("/usage", { key_id: id }) }, id), " ", name);
  };
  return breakdown("By key", "Key", used.by_key, cell);
}

function breakdown(heading, what, sums, cell) {
  const rows = Object.entries(sums)
    .map(([name, sum]) => ({ name, ...sum }))
    .sort((one, other) => other.requests - one.requests);
  const place = h("div");
  const most = Math.max(1, ...rows.map(({ requests }) => requests));
  const columns = [
    { label: what, header: true, cell: (row) => cell(row.name) },
    { label: "Requests", end: true, cell: (row) => number(row.requests) },
    { label: "Share", class: "usage-share", from: "medium", cell: (row) => meter(row.requests, { max: most, label: `${percent(row.requests / total(rows))} of all requests` }) },
    { label: "Failed", end: true, from: "wide", cell: (row) => number(row.errors) },
    { label: "Stored", end: true, from: "wide", cell: (row) => number(row.memories_stored) },
    { label: "Memory", end: true, cell: (row) => short(row.tokens_retrieved) },
    { label: "Model tokens", end: true, from: "medium", cell: (row) => short(row.input_tokens + row.output_tokens) },
  ];
  let shown = ROWS;
  const draw = () => {
    const rest = rows.length - shown;
    const more = rest > 0 && button(`Show ${number(Math.min(rest, 100))} more of ${number(rest)}`, { small: true, onclick: () => ((shown += 100), draw()) });
    replace(place, simpleTable({ caption: heading, columns, rows: rows.slice(0, shown) }), more);
  };
  draw();
  return card({ title: heading, note: "The busiest first." }, place);
}

function total(rows) {
  return rows.reduce((sum, { requests }) => sum + requests, 0) || 1;
}

/** A day, UTC, as the server writes it. */
function isoDay(ms) {
  return new Date(ms).toISOString().slice(0, 10);
}
