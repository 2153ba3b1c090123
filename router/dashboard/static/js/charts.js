/**
 * Charts as plain SVG that follow their width, each with the same figures as a table for those who cannot see it.
 * Colours come from classes `series-1` to `series-6`. Gaps (null) are left open.
 */

import { h, replace, setText, svg } from "./dom.js";
import { short } from "./format.js";
import { simpleTable } from "./tables.js";

const LEFT = 44;
const RIGHT = 8;
const TOP = 8;
const BOTTOM = 22;

/**
 * @typedef {Object} Series
 * @property {string} name
 * @property {Array<number|null>} values one for each label
 * @property {number} [colour] 1 to 6; its place in the list unless given
 */

/**
 * @typedef {Object} Chart
 * @property {string} title what the figures are; spoken, and the table's caption
 * @property {string[]} labels of the horizontal axis
 * @property {Series[]} series
 * @property {(value: number) => string} [format] of values
 * @property {number} [height] pixels
 * @property {string} [axis] what the labels are ("Time", "Day"), for the table
 */

/** Lines over time: `{element, update(chart)}`. @param {Chart} chart */
export function lineChart(chart) {
  return frame(chart, drawLines);
}

/** Bars beside each other: `{element, update(chart)}`. @param {Chart} chart */
export function barChart(chart) {
  return frame(chart, (area, data) => drawBars(area, data, false), { bars: true });
}

/** Bars of parts that add up: `{element, update(chart)}`. @param {Chart} chart */
export function stackedBars(chart) {
  return frame(chart, (area, data) => drawBars(area, data, true), { bars: true });
}

/**
 * One horizontal bar of a share, for instance why a memory was found. @param {number} value 0 to `max`
 * @param {{max?: number, label: string, colour?: number}} options the label is spoken: say the value in it
 */
export function meter(value, { max = 1, label, colour = 1 }) {
  const share = max > 0 ? Math.min(1, Math.max(0, value / max)) : 0;
  return svg(
    "svg",
    { class: "meter", viewBox: "0 0 100 6", preserveAspectRatio: "none", role: "img", "aria-label": label },
    svg("rect", { class: "meter-track", width: 100, height: 6, rx: 1 }),
    svg("rect", { class: `meter-fill series-${colour}`, width: share * 100, height: 6, rx: 1 }),
  );
}

function frame(first, draw, { bars = false } = {}) {
  let chart = first;
  let width = 0;
  const drawing = h("div", { class: "chart-drawing" });
  const pointer = { bars, at: null }; // which label the pointer is over, kept while the figures change
  const legend = h("ul", { class: "chart-legend" });
  const table = h("details", { class: "chart-table", ontoggle: () => table.open && fillTable() }, h("summary", null, "Show as a table"), h("div"));
  const element = h("figure", { class: "chart" }, drawing, h("div", { class: "chart-foot" }, legend, table));

  function fillTable() {
    const columns = [
      { label: chart.axis ?? "Time", header: true, cell: (row) => chart.labels[row] },
      ...chart.series.map((one) => ({ label: one.name, end: true, cell: (row) => say(chart, one.values[row]) })),
    ];
    replace(table.lastChild, simpleTable({ caption: chart.title, columns, rows: chart.labels.map((_, row) => row) }));
  }

  function update(next = chart) {
    chart = next;
    const names = chart.series.map((one, index) => `${one.colour ?? index + 1}|${one.name}`).join("\n");
    if (legend.dataset.names !== names) {
      legend.dataset.names = names;
      replace(legend, chart.series.map((one, index) => h("li", null, swatch(one.colour ?? index + 1), one.name)));
    }
    legend.hidden = chart.series.length < 2;
    if (table.open) fillTable();
    if (width > 0) replace(drawing, paint(chart, width, draw, pointer));
  }

  new ResizeObserver(([entry]) => {
    const now = Math.floor(entry.contentRect.width);
    if (now === width) return;
    width = now;
    update();
  }).observe(drawing);
  update();
  return { element, update };
}

function swatch(colour) {
  return svg("svg", { class: "swatch", viewBox: "0 0 10 10", "aria-hidden": "true" }, svg("rect", { class: `bar series-${colour}`, width: 10, height: 10, rx: 2 }));
}

function say(chart, value) {
  return value === null || value === undefined ? "–" : (chart.format ?? short)(value);
}

function paint(chart, width, draw, pointer) {
  const height = chart.height ?? 180;
  const area = { left: LEFT, top: TOP, width: Math.max(40, width - LEFT - RIGHT), height: height - TOP - BOTTOM };
  const root = svg("svg", { class: "chart-svg", viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": summary(chart) });
  const readout = h("p", { class: "chart-readout", "aria-hidden": "true" });
  const nothing = chart.series.every((one) => one.values.every((value) => !value));
  if (nothing) root.append(svg("text", { class: "chart-nothing", x: area.left + area.width / 2, y: area.top + area.height / 2, "text-anchor": "middle" }, "Nothing yet"));
  root.append(...draw(area, { ...chart, colours: chart.series.map((one, index) => one.colour ?? index + 1) }));
  hover(root, area, chart, readout, pointer);
  return [root, readout];
}

function summary(chart) {
  const parts = chart.series.map((one) => {
    const known = one.values.filter((value) => value !== null && value !== undefined);
    if (known.length === 0) return `${one.name}: nothing yet`;
    return `${one.name}: last ${say(chart, known.at(-1))}, at most ${say(chart, Math.max(...known))}`;
  });
  return `${chart.title}. ${parts.join("; ")}.`;
}

/** Round values for the axis, from 0 to at least `top`. */
function ticksTo(top, count = 3) {
  if (!(top > 0)) return [0, 1];
  const rough = top / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((candidate) => candidate >= rough * 0.999);
  const ticks = [];
  for (let value = 0; value < top + step * 0.999; value += step) ticks.push(Number(value.toPrecision(12)));
  return ticks;
}

function axes(area, chart, ticks, place) {
  const top = ticks.at(-1);
  const y = (value) => area.top + area.height - (value / top) * area.height;
  const lines = ticks.map((value) => [
    svg("line", { class: "grid", x1: area.left, x2: area.left + area.width, y1: y(value), y2: y(value) }),
    svg("text", { class: "tick", x: area.left - 8, y: y(value) + 4, "text-anchor": "end" }, say(chart, value)),
  ]);
  const room = Math.max(1, Math.floor(area.width / 76));
  const every = Math.max(1, Math.ceil(chart.labels.length / room));
  const below = area.top + area.height + 16;
  const marks = chart.labels.map((label, index) => {
    const last = chart.labels.length - 1;
    if ((last - index) % every !== 0) return null;
    const x = place(index);
    const anchor = x > area.left + area.width - 24 ? "end" : x < area.left + 24 ? "start" : "middle";
    return svg("text", { class: "tick", x, y: below, "text-anchor": anchor }, label);
  });
  return { y, nodes: [...lines.flat(), ...marks.filter(Boolean)] };
}

function pathOf(values, x, y) {
  let path = "";
  let open = false;
  for (const [index, value] of values.entries()) {
    if (value === null || value === undefined) {
      open = false;
      continue;
    }
    path += `${open ? "L" : "M"}${x(index).toFixed(1)} ${y(value).toFixed(1)}`;
    open = true;
  }
  return path;
}

function drawLines(area, chart) {
  const last = Math.max(1, chart.labels.length - 1);
  const x = (index) => area.left + (index / last) * area.width;
  const top = Math.max(0, ...chart.series.flatMap((one) => one.values.map((value) => value ?? 0)));
  const { y, nodes } = axes(area, chart, ticksTo(top), x);
  const drawn = chart.series.flatMap((one, index) => {
    const path = pathOf(one.values, x, y);
    const lonely = one.values.flatMap((value, at) => (isLonely(one.values, at) ? [svg("circle", { class: `dot series-${chart.colours[index]}`, cx: x(at), cy: y(value), r: 2.5 })] : []));
    return [svg("path", { class: `line series-${chart.colours[index]}`, d: path }), ...lonely];
  });
  return [...nodes, ...drawn.reverse()]; // the first on top
}

/** A value between gaps has no line: it is drawn as a dot. */
function isLonely(values, at) {
  const known = (index) => values[index] !== null && values[index] !== undefined;
  return known(at) && !known(at - 1) && !known(at + 1);
}

function drawBars(area, chart, stacked) {
  const count = Math.max(1, chart.labels.length);
  const step = area.width / count;
  const sums = chart.labels.map((_, at) => chart.series.reduce((sum, one) => sum + (one.values[at] ?? 0), 0));
  const top = stacked ? Math.max(0, ...sums) : Math.max(0, ...chart.series.flatMap((one) => one.values.map((value) => value ?? 0)));
  const { y, nodes } = axes(area, chart, ticksTo(top), (index) => area.left + (index + 0.5) * step);
  const gap = Math.min(8, step * 0.25);
  const wide = stacked ? step - gap : (step - gap) / Math.max(1, chart.series.length);
  const bars = chart.labels.flatMap((_, at) => {
    let base = 0;
    return chart.series.map((one, index) => {
      const value = one.values[at] ?? 0;
      const from = stacked ? base : 0;
      base += value;
      const x = area.left + at * step + gap / 2 + (stacked ? 0 : index * wide);
      const height = Math.max(0, y(from) - y(from + value));
      return value > 0 ? svg("rect", { class: `bar series-${chart.colours[index]}`, x, y: y(from + value), width: Math.max(1, Math.min(wide, 48)), height: Math.max(height, 1), rx: Math.min(2, wide / 4) }) : null;
    });
  });
  return [...nodes, ...bars.filter(Boolean)];
}

/** What the figures are under the pointer. */
function hover(root, area, chart, readout, pointer) {
  const count = chart.labels.length;
  const step = pointer.bars ? area.width / Math.max(1, count) : area.width / Math.max(1, count - 1);
  const cross = svg("line", { class: "cross", y1: area.top, y2: area.top + area.height, visibility: "hidden" });
  root.append(cross);
  const point = () => {
    const shown = pointer.at !== null && pointer.at < count;
    readout.classList.toggle("is-shown", shown);
    cross.setAttribute("visibility", shown ? "visible" : "hidden");
    if (!shown) return;
    const x = area.left + (pointer.bars ? pointer.at + 0.5 : pointer.at) * step;
    for (const end of ["x1", "x2"]) cross.setAttribute(end, x);
    const values = chart.series.map((one) => `${one.name} ${say(chart, one.values[pointer.at])}`);
    setText(readout, [chart.labels[pointer.at], ...values].join("  ·  "));
  };
  root.addEventListener("pointermove", (event) => {
    const place = (event.clientX - root.getBoundingClientRect().left - area.left) / step;
    const at = pointer.bars ? Math.floor(place) : Math.round(place);
    pointer.at = at >= 0 && at < count ? at : null;
    point();
  });
  root.addEventListener("pointerleave", () => {
    pointer.at = null;
    point();
  });
  point();
}
