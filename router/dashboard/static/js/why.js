/** Why a search placed a memory where it did: what each feature added to its score, as small bars. */

import { h, svg } from "./dom.js";
import { decimal } from "./format.js";

const SHOWN = 5;
const LEAST = 0.005;
const WIDTH = 100;
const NAMES = {
  base: "Match as a whole",
  lexical: "Words",
  dense: "Meaning",
  place: "Among the best",
  before: "Words just before it",
  answers: "Follows such a question",
  coverage: "Words in and around",
  speaker: "Said by who is asked about",
  time: "Names a time",
  number: "Names a number",
  prefers: "Tells a liking",
  exact: "Quoted or exact words",
  asks: "Asks something itself",
  long: "Its length",
  told: "Told at that time",
  preferred_session: "This session",
};

/** What each feature added: `[{name, label, value, weight, added}]`, the strongest first. */
function contributions(explanation) {
  return Object.entries(explanation.features)
    .map(([name, value]) => {
      const weight = explanation.weights[name] ?? 0;
      return { name, label: NAMES[name] ?? name, value, weight, added: value * weight };
    })
    .filter(({ added }) => Math.abs(added) >= LEAST)
    .sort((one, other) => Math.abs(other.added) - Math.abs(one.added));
}

/**
 * How far bars go to either side in all results, so that they can be compared.
 * @returns {{against: number, speaking: number}}
 */
export function scaleOf(explanations) {
  const all = explanations.flatMap((one) => contributions(one).map(({ added }) => added));
  return { against: Math.max(0, ...all.map((added) => -added)), speaking: Math.max(1, ...all) };
}

/** The bars of one result. @param {{against: number, speaking: number}} scale */
export function whyBars(explanation, scale) {
  const all = contributions(explanation);
  const rest = all.slice(SHOWN);
  return h(
    "div",
    { class: "why" },
    table("Why it was found", all.slice(0, SHOWN), scale),
    rest.length > 0 && h("details", { class: "why-rest" }, h("summary", null, `${rest.length} more`), table("Further reasons", rest, scale)),
  );
}

function table(caption, rows, scale) {
  const lines = rows.map(({ label, value, weight, added }) =>
    h(
      "tr",
      { title: `${decimal(value, 3)} times a weight of ${decimal(weight, 3)}` },
      h("th", { scope: "row" }, label),
      h("td", { class: "why-bar" }, bar(added, scale)),
      h("td", { class: "is-end" }, `${added < 0 ? "−" : "+"}${decimal(Math.abs(added), 2)}`),
    ),
  );
  return h("table", { class: "why-table" }, h("caption", { class: "visually-hidden" }, caption), h("tbody", null, lines));
}

/** From a line: to the right what speaks for it, to the left what speaks against it. */
function bar(added, { against, speaking }) {
  const unit = WIDTH / (against + speaking);
  const axis = Math.max(against * unit, 1);
  const length = Math.max(1, Math.abs(added) * unit);
  return svg(
    "svg",
    { class: "why-svg", viewBox: `0 0 ${WIDTH} 8`, preserveAspectRatio: "none", "aria-hidden": "true", focusable: "false" },
    svg("rect", { class: added < 0 ? "why-against" : "why-for", x: added < 0 ? axis - length : axis, y: 1, width: length, height: 6 }),
    svg("line", { class: "why-axis", x1: axis, x2: axis, y1: 0, y2: 8 }),
  );
}
