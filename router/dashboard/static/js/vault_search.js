/** Search in a vault: the best memories for a question, best first, each with its score and why it was found. */

import { api } from "./api.js";
import { h, replace } from "./dom.js";
import { badge, button, emptyState, errorState, field, select, skeleton, textInput } from "./components.js";
import { milliseconds, percent, plural } from "./format.js";
import { isAbort } from "./live.js";
import { memoryItem } from "./memory_parts.js";
import { setQuery } from "./router.js";
import { scaleOf, whyBars } from "./why.js";

const LIMITS = [["10", "10"], ["30", "30"], ["100", "100"]];

/** @param {{vault: string, query: URLSearchParams, signal: AbortSignal, onchange: () => void}} what */
export function vaultSearch({ vault, query, signal, onchange }) {
  const question = h("input", { type: "search", class: "input", autocomplete: "off", value: query.get("question") ?? "", placeholder: "What does the vault know about…?" });
  const session = textInput({ value: query.get("session") ?? "" });
  const limit = select(LIMITS, { value: query.get("limit") ?? LIMITS[0][0] });
  const go = button("Search", { kind: "primary", icon: "search", type: "submit" });
  const found = h("div", { class: "search-results" });
  const form = h(
    "form",
    { class: "search-form", role: "search", onsubmit: (event) => (event.preventDefault(), run()) },
    field("Question", question).element,
    field("Session", session, { optional: true }).element,
    field("Results", limit).element,
    go,
  );
  let asking = new AbortController();
  signal.addEventListener("abort", () => asking.abort());

  async function run() {
    const asked = question.value.trim();
    asking.abort();
    if (!asked) {
      replace(found, hintOf());
      return;
    }
    asking = new AbortController();
    const { signal: mine } = asking;
    setQuery({ tab: "search", question: asked, session: session.value.trim(), limit: limit.value });
    replace(found, skeleton(5));
    try {
      const body = { query: asked, limit: Number(limit.value), explain: true, session_id: session.value.trim() || undefined };
      const answer = await api.post("v1/memory/search", { vault, body, signal: mine });
      if (!mine.aborted) replace(found, resultsOf(answer));
    } catch (error) {
      if (!isAbort(error) && !mine.aborted) replace(found, errorState(error, run));
    }
  }

  function resultsOf({ memories, metrics }) {
    if (memories.length === 0) return emptyState({ title: "Nothing to be found.", text: "The vault, or this session of it, holds no memory." });
    const scale = scaleOf(memories.map(({ explanation }) => explanation).filter(Boolean));
    const again = () => (run(), onchange());
    const items = memories.map((memory, place) => memoryItem(memory, {
      vault,
      matched: memory.matched,
      ongone: again,
      lead: h("span", { class: "rank" }, h("span", { class: "rank-place" }, place + 1), scoreOf(memory.score)),
      aside: memory.explanation && whyBars(memory.explanation, scale),
    }));
    return [
      h("p", { class: "muted", role: "status" }, `${plural(memories.length, "memory", "memories")} in ${milliseconds(metrics.total_ms)}. A score is the probability that the memory answers; bars to the right speak for it.`),
      h("ol", { class: "memories" }, items),
    ];
  }

  replace(found, hintOf());
  if (question.value) run();
  return h("div", { class: "vault-search" }, form, found);
}

function scoreOf(score) {
  return badge(percent(score), score >= 0.5 ? "ok" : score >= 0.1 ? "accent" : "neutral", { title: "The probability that it answers the question" });
}

function hintOf() {
  return emptyState({ title: "Ask as a user of yours would.", text: "The search ranks by words, meaning, neighbours, sessions and times, and says why." });
}
