/** The overview: what the server does now, asked for every two seconds while the page is visible. */

import { api } from "../api.js";
import { badge, card, codeBlock, emptyState, errorState, linkButton, notice, page, skeleton, stat, when } from "../components.js";
import { lineChart, meter } from "../charts.js";
import { h, replace, setText } from "../dom.js";
import { bytes, decimal, duration, milliseconds, number, percent, short, time } from "../format.js";
import { isAbort, poll } from "../live.js";
import { href } from "../router.js";
import { firstSteps } from "../snippets.js";
import { refill } from "../tables.js";

export const title = "Overview";

const EVERY_MS = 2000;

export async function show(root, { signal }) {
  const state = h("span", { class: "live", role: "status" });
  const body = page(root, { title, lead: state });
  replace(body, skeleton(6));
  let view = null;
  poll(async () => {
    try {
      const figures = await api.get("overview", { query: { series: "minute" }, signal });
      if (!view) {
        view = drawing();
        replace(body, view.nodes);
      }
      view.update(figures);
      state.classList.remove("is-stale");
      setText(state, `Version ${figures.version} · up ${duration(figures.uptime_s)}`);
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      state.classList.add("is-stale");
      setText(state, `${error.message} Trying again…`);
      if (!view) replace(body, errorState(error));
    }
  }, EVERY_MS, signal);
}

function drawing() {
  const parts = [warnings(), welcome(), tiles(), series(), latency(), queues(), providers(), machine()];
  const [news, hello, figures, charts, delays, waiting, health, host] = parts;
  return {
    nodes: [news.element, hello.element, figures.element, charts.element, h("div", { class: "grid-2" }, delays.element, waiting.element), h("div", { class: "grid-2" }, health.element, host.element)],
    update(data) {
      for (const part of parts) part.update(data);
    },
  };
}

/** What needs somebody. */
function warnings() {
  const element = h("div", { class: "stack", role: "status", hidden: true });
  let shown = "";
  return {
    element,
    update(data) {
      const found = problems(data);
      const now = found.join("\n");
      if (now === shown) return;
      shown = now;
      element.hidden = found.length === 0;
      replace(element, found.map((text) => notice("warning", text)));
    },
  };
}

function problems({ queues = [], providers = [], disk }) {
  const full = queues.filter((queue) => queue.capacity > 0 && queue.waiting / queue.capacity >= 0.8);
  const failing = providers.filter((provider) => provider.state === "failing" || provider.state === "open");
  const small = disk && disk.free_bytes < 1024 ** 3;
  return [
    ...full.map((queue) => `The queue “${queue.name}” is nearly full: ${number(queue.waiting)} of ${number(queue.capacity)}.`),
    ...failing.map((provider) => `${provider.name} ${provider.state === "open" ? "is not asked at the moment, after many failures" : "is failing"}${provider.last_error_status ? ` (last status ${provider.last_error_status})` : ""}.`),
    ...(small ? [`Only ${bytes(disk.free_bytes)} of disk space are free.`] : []),
  ];
}

/** The first minutes: nothing is remembered and nobody has asked. */
function welcome() {
  const element = h("div", { hidden: true });
  return {
    element,
    update(data) {
      const fresh = data.memories?.total === 0;
      if (fresh === !element.hidden) return;
      element.hidden = !fresh;
      if (!fresh) {
        replace(element);
        return;
      }
      replace(
        element,
        card(
          { title: "Nothing is remembered yet" },
          h("p", { class: "muted measure" }, "Make a key for a user, then point an SDK at this server, or send a first memory with curl. Figures appear here within seconds."),
          h("div", { class: "welcome" }, codeBlock(firstSteps(), { name: "First memory with curl" }), h("div", { class: "empty-actions" }, linkButton("Create a key", href("/keys", { new: 1 }), { kind: "primary", icon: "plus" }), linkButton("Add a provider", href("/providers"), { icon: "providers" }), linkButton("Open the playground", href("/playground"), { icon: "playground" }))),
        ),
      );
    },
  };
}

function tiles() {
  const rate = stat("Requests / s", { title: "Mean of the last minute" });
  const errors = stat("Errors");
  const recall = stat("Recall, p95", { title: "Of the last five minutes" });
  const memories = stat("Memories");
  const vaults = stat("Vaults");
  const tokens = stat("Injected tokens", { title: "Tokens of memory that providers were given" });
  const all = [rate, errors, recall, memories, vaults, tokens];
  return {
    element: h("dl", { class: "stats" }, all.map((one) => one.element)),
    update({ requests, latency_ms: latency, memories: kept, tokens: counted }) {
      rate.set(decimal(requests.per_s, 2), `${short(requests.total)} in all`);
      errors.set(short(requests.errors), requests.total ? `${percent(requests.errors / requests.total)} of requests` : "of no requests yet");
      recall.set(milliseconds(latency.recall?.p95), latency.recall?.p50 === null || latency.recall?.p50 === undefined ? "none lately" : `p50 ${milliseconds(latency.recall.p50)}`);
      memories.set(short(kept.total), kept.pending ? `${short(kept.pending)} not embedded yet` : "all embedded");
      vaults.set(short(kept.vaults), `${short(kept.vaults_active)} in memory`);
      tokens.set(short(counted.injected), `${short(counted.retrieved)} retrieved`);
    },
  };
}

function series() {
  const none = { labels: [], series: [] };
  const requests = lineChart({ ...none, title: "Requests per minute", format: (value) => short(value) });
  const delays = lineChart({ ...none, title: "Time to answer", format: milliseconds });
  const element = h("div", { class: "grid-2" }, card({ title: "Requests", note: "each minute of the last hour" }, requests.element), card({ title: "Time to answer", note: "each minute of the last hour" }, delays.element));
  let last = "";
  return {
    element,
    update({ series: points = [] }) {
      const now = JSON.stringify(points);
      if (now === last) return;
      last = now;
      const labels = points.map((point) => time(point.t));
      requests.update({ title: "Requests per minute", format: (value) => short(value), labels, series: [{ name: "Requests", values: points.map((point) => point.requests) }, { name: "Errors", values: points.map((point) => point.errors), colour: 2 }] });
      delays.update({ title: "Time to answer", format: milliseconds, labels, series: [{ name: "p50", values: points.map((point) => point.p50_ms ?? null) }, { name: "p99", values: points.map((point) => point.p99_ms ?? null), colour: 3 }] });
    },
  };
}

const DELAYS = { all: "All requests", recall: "Recall", chat_first_byte: "Chat, first byte", chat_overhead: "Chat, added by memory" };

function latency() {
  const place = h("div");
  return {
    element: card({ title: "Latency", note: "last five minutes" }, place),
    update({ latency_ms: latencies = {} }) {
      const rows = Object.entries(latencies).filter(([name, one]) => name !== "scope" && one && typeof one === "object");
      refill(place, {
        caption: "Latency",
        rows,
        columns: [
          { label: "Of", header: true, cell: ([name]) => DELAYS[name] ?? name },
          ...["p50", "p95", "p99"].map((level) => ({ label: level, end: true, cell: ([, one]) => milliseconds(one[level]) })),
        ],
      });
    },
  };
}

function capital(text) {
  return text.slice(0, 1).toUpperCase() + text.slice(1);
}

function queues() {
  const place = h("div");
  return {
    element: card({ title: "Queues", note: "waiting now" }, place),
    update({ queues: rows = [] }) {
      refill(place, {
        caption: "Queues",
        rows,
        columns: [
          { label: "Queue", header: true, cell: (row) => capital(row.name) },
          { label: "Filled", from: "medium", class: "meter-cell", cell: (row) => (row.capacity ? meter(row.waiting, { max: row.capacity, label: `${percent(row.waiting / row.capacity)} full`, colour: row.waiting / row.capacity >= 0.8 ? 2 : 1 }) : null) },
          { label: "Waiting", end: true, cell: (row) => number(row.waiting) },
          { label: "Room", end: true, cell: (row) => (row.capacity ? number(row.capacity) : "no limit") },
        ],
      });
    },
  };
}

const STATES = { ok: ["Works", "ok"], failing: ["Failing", "danger"], open: ["Paused", "danger"], unknown: ["Not used yet", "neutral"] };

function providers() {
  const place = h("div");
  return {
    element: card({ title: "Providers", actions: [h("a", { href: href("/providers") }, "Manage")] }, place),
    update({ providers: all = [] }) {
      const rows = all.filter((one) => one.has_key || one.requests > 0);
      if (rows.length === 0) {
        if (!place.querySelector(".empty")) replace(place, emptyState({ title: "No provider has a key", text: h("span", null, "Memory works without one; chats through this server need one. ", h("a", { href: href("/providers") }, "Add a key")) }));
        return;
      }
      refill(place, {
        caption: "Providers",
        rows,
        columns: [
          { label: "Provider", header: true, cell: (row) => row.name },
          { label: "State", cell: (row) => badge(...(STATES[row.state] ?? STATES.unknown)) },
          { label: "Requests", end: true, cell: (row) => short(row.requests) },
          { label: "Errors", end: true, cell: (row) => short(row.errors) },
          { label: "Last used", end: true, from: "medium", cell: (row) => when(row.last_used_at) },
        ],
      });
    },
  };
}

function machine() {
  const values = {};
  const facts = h("dl", { class: "facts" });
  for (const name of ["Memory of the process", "Disk used", "Disk free", "Started", "Tokens of models"]) {
    values[name] = h("dd");
    facts.append(h("dt", null, name), values[name]);
  }
  let started = "";
  return {
    element: card({ title: "Server" }, facts),
    update({ memory_bytes: resident, disk, started_at: at, tokens = {} }) {
      setText(values["Memory of the process"], bytes(resident));
      setText(values["Disk used"], bytes(disk?.used_bytes));
      setText(values["Disk free"], bytes(disk?.free_bytes));
      setText(values["Tokens of models"], `${short(tokens.input)} in, ${short(tokens.output)} out`);
      if (started !== at) replace(values.Started, when(at, "unknown"));
      started = at;
    },
  };
}
