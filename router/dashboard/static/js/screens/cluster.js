/** The servers on one database and who owns what, for the operator. Looks only: `memoryrouter cluster` changes it. */

import { api, currentSession } from "../api.js";
import { badge, card, codeBlock, emptyState, errorState, notice, page, skeleton, stat } from "../components.js";
import { h, replace, setText } from "../dom.js";
import { decimal, milliseconds, number, plural } from "../format.js";
import { isAbort, poll } from "../live.js";
import { refill } from "../tables.js";

export const title = "Cluster";

const EVERY_MS = 2000;
const STATES = { alive: ["Alive", "ok"], draining: ["Draining", "warning"], leaving: ["Leaving", "neutral"], dead: ["Dead", "danger"] };

export async function show(root, { signal }) {
  const state = h("span", { class: "live", role: "status" });
  const body = page(root, { title, lead: state });
  if (!currentSession().is_operator) {
    replace(body, emptyState({ title: "This is the operator's", text: "Sign in with a key of the server's first account." }));
    return;
  }
  replace(body, skeleton(6));
  let view = null;
  poll(async () => {
    try {
      const found = await api.get("cluster", { signal });
      if (!view) {
        view = found.clustered ? drawing() : found.workers ? crew() : alone();
        replace(body, view.nodes);
      }
      view.update(found);
      state.classList.remove("is-stale");
      setText(state, view.lead(found));
    } catch (error) {
      if (isAbort(error) || signal.aborted) return;
      state.classList.add("is-stale");
      setText(state, `${error.message} Trying again…`);
      if (!view) replace(body, errorState(error));
    }
  }, EVERY_MS, signal);
}

function alone() {
  const text = "It keeps everything in files of its own (store.kind is sqlite). Servers that share a PostgreSQL database form a cluster by themselves.";
  return { nodes: emptyState({ title: "This server is alone", text }), lead: () => "", update() {} };
}

/** Several processes on one machine and its files. */
function crew() {
  const news = warnings(({ workers }) =>
    workers.filter((one) => !one.up).map((one) => `Worker ${one.worker} is being started again: requests for the vaults of its shards are answered with 503 until it is back.`),
  );
  const place = h("div");
  return {
    nodes: [news.element, card({ title: "Workers", note: "processes that share this data directory" }, place)],
    lead: ({ workers }) => `${plural(workers.length, "worker")} on one machine`,
    update(found) {
      news.update(found);
      refill(place, {
        caption: "Workers",
        rows: found.workers,
        columns: [
          { label: "Worker", header: true, cell: (row) => number(row.worker) },
          { label: "State", cell: (row) => (row.up ? badge("Serving", "ok") : badge("Down", "danger")) },
          { label: "Shards", cell: (row) => row.shards.join(", ") },
          { label: "Started again", end: true, cell: (row) => number(row.restarts) },
        ],
      });
    },
  };
}

function drawing() {
  const parts = [warnings(problems), tiles(), servers(), astray(), counted(), commands()];
  const [news, figures, list, moving, facts, words] = parts;
  return {
    lead: ({ node_id: id, nodes }) => `This is ${id}, one of ${plural(nodes.length, "node")}`,
    nodes: [news.element, figures.element, list.element, moving.element, h("div", { class: "grid-2" }, facts.element, words.element)],
    update(found) {
      for (const part of parts) part.update(found);
    },
  };
}

/** What needs somebody. */
function warnings(problems) {
  const element = h("div", { class: "stack", role: "status", hidden: true });
  let shown = "";
  return {
    element,
    update(found) {
      const all = problems(found);
      if (all.join("\n") === shown) return;
      shown = all.join("\n");
      element.hidden = all.length === 0;
      replace(element, all.map((text) => notice("warning", text)));
    },
  };
}

function problems({ lease_remaining_s: lease, parts, nodes }) {
  const dead = nodes.filter((node) => node.state === "dead");
  return [
    ...(lease <= 0 ? ["This node's lease is over: it has not reached PostgreSQL for too long. It stores nothing, and what it answers may be outdated. What follows is what it saw last."] : []),
    ...(parts.unowned > 0 ? [`${plural(parts.unowned, "partition")} without a living owner: requests for their vaults wait or are answered with 503.`] : []),
    ...dead.map((node) => `${node.id} has not been heard of, and left without a word.`),
  ];
}

function tiles() {
  const nodes = stat("Nodes alive");
  const owned = stat("Partitions here", { title: "That this node owns" });
  const moving = stat("Moving", { title: "That come to this node or leave it" });
  const awaited = stat("Awaited", { title: "That others are to give up to this node" });
  const lease = stat("Lease", { title: "What is left of this node's lease, as it counts itself" });
  const sent = stat("Sent on", { title: "Requests that this node sent to other nodes since its start" });
  return {
    element: h("dl", { class: "stats" }, [nodes, owned, moving, awaited, lease, sent].map((one) => one.element)),
    update({ counted: counts, parts, settled, ...found }) {
      nodes.set(number(counts.nodes_alive), `of ${number(found.nodes.length)} known`);
      owned.set(number(counts.parts_owned), `of ${number(parts.total)}`);
      moving.set(number(counts.parts_moving), settled ? "all is where it should be" : `${number(parts.astray)} elsewhere than placed`);
      awaited.set(number(counts.parts_awaited), parts.pinned ? `${number(parts.pinned)} pinned by hand` : "none pinned by hand");
      lease.set(`${decimal(found.lease_remaining_s)} s`, `of ${decimal(found.ttl_s)} s; a renewal takes ${milliseconds(found.heartbeat_ms)}`);
      sent.set(number(counts.forwarded), `${number(counts.failed)} failed`);
    },
  };
}

function servers() {
  const place = h("div");
  return {
    element: card({ title: "Nodes", note: "as the database shows them" }, place),
    update({ nodes, node_id: here }) {
      // Leases differ at each look: rounded, so that the table is drawn again only where something happened.
      const rows = nodes.map((node) => ({ ...node, lease_remaining_s: Math.round(node.lease_remaining_s), here: node.id === here }));
      refill(place, {
        caption: "Nodes",
        rows,
        columns: [
          { label: "Node", header: true, cell: (row) => h("span", null, row.id, row.here && " ", row.here && badge("this one", "accent")) },
          { label: "State", cell: (row) => badge(...(STATES[row.state] ?? [row.state, "neutral"])) },
          { label: "Partitions", end: true, cell: (row) => number(row.parts) },
          { label: "Placed", end: true, from: "medium", cell: (row) => number(row.parts_placed) },
          { label: "Lease", end: true, from: "medium", cell: (row) => (row.lease_remaining_s > 0 ? `${number(row.lease_remaining_s)} s` : "over") },
          { label: "Address", from: "medium", cell: (row) => h("code", null, row.address) },
          { label: "Zone", from: "wide", cell: (row) => row.zone },
          { label: "Weight", end: true, from: "wide", cell: (row) => decimal(row.weight, 2) },
          { label: "Version", from: "wide", cell: (row) => row.version },
        ],
      });
    },
  };
}

function astray() {
  const place = h("div");
  const note = h("span");
  return {
    element: card({ title: "Partitions on their way", note }, place),
    update({ astray: rows, parts }) {
      setText(note, parts.astray > rows.length ? `the first ${number(rows.length)} of ${number(parts.astray)}` : plural(parts.astray, "partition"));
      refill(place, {
        caption: "Partitions on their way",
        none: "Each partition is owned by the node that it is placed at.",
        rows,
        columns: [
          { label: "Partition", header: true, cell: (row) => number(row.part) },
          { label: "Owner", cell: (row) => row.owner ?? badge("none", "danger") },
          { label: "Placed at", cell: (row) => row.placed ?? "nowhere" },
          { label: "Epoch", end: true, from: "medium", cell: (row) => number(row.epoch) },
          { label: "Pinned to", from: "medium", cell: (row) => row.pinned ?? "" },
        ],
      });
    },
  };
}

const COUNTS = {
  takeovers: "Taken over from the dead",
  acquisitions: "Partitions taken",
  hand_overs: "Handed over",
  losses: "Lost without a hand-over",
  lapses: "Leases that ran out",
  failures: "Renewals without an answer",
  forwarded: "Requests sent on",
  redirected: "Sent on twice",
  failed: "Not reached",
};

function counted() {
  const values = new Map(Object.keys(COUNTS).map((name) => [name, h("dd")]));
  const facts = h("dl", { class: "facts" }, [...values].flatMap(([name, value]) => [h("dt", null, COUNTS[name]), value]));
  return {
    element: card({ title: "Counted by this node", note: "since its start" }, facts),
    update({ counted: counts }) {
      for (const [name, value] of values) setText(value, number(counts[name]));
    },
  };
}

function commands() {
  const lines = "memoryrouter cluster status\nmemoryrouter cluster drain NODE\nmemoryrouter cluster move PARTITION NODE";
  return { element: card({ title: "To change it" }, h("p", { class: "muted" }, "On a machine with the server's settings:"), codeBlock(lines, { name: "Commands" })), update() {} };
}
