/** Numbers, times and sizes as people read them. Pure. What is unknown (null, undefined, NaN) is an en dash. */

export const UNKNOWN = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const compact = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });
const moment = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "short" });
const exact = new Intl.DateTimeFormat("en-GB", { dateStyle: "full", timeStyle: "long" });
const day = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium" });
const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit" });

const missing = (value) => value === null || value === undefined || value === "" || Number.isNaN(value);

/** 12,345 */
export function number(value) {
  return missing(value) ? UNKNOWN : whole.format(value);
}

/** 12.3K */
export function short(value) {
  if (missing(value)) return UNKNOWN;
  return Math.abs(value) < 10_000 ? whole.format(value) : compact.format(value);
}

/** 0.4, 3.2, 41: at most `digits` behind the point, none from 100 on. */
export function decimal(value, digits = 1) {
  if (missing(value)) return UNKNOWN;
  return new Intl.NumberFormat("en", { maximumFractionDigits: Math.abs(value) >= 100 ? 0 : digits }).format(value);
}

/** "1 key", "2 keys" */
export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

/** 0.034 -> "3.4 %" */
export function percent(share) {
  return missing(share) ? UNKNOWN : `${decimal(share * 100)} %`;
}

/** 1536 -> "1.5 KiB" */
export function bytes(value) {
  if (missing(value)) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let size = Number(value);
  let unit = 0;
  while (Math.abs(size) >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${decimal(size)} ${units[unit]}`;
}

/** 0.4 -> "0.4 ms", 1800 -> "1.8 s" */
export function milliseconds(value) {
  if (missing(value)) return UNKNOWN;
  return value < 1000 ? `${decimal(value, value < 10 ? 1 : 0)} ms` : `${decimal(value / 1000)} s`;
}

/** 93784 -> "1 d 2 h" */
export function duration(seconds) {
  if (missing(seconds)) return UNKNOWN;
  const total = Math.max(0, Math.floor(seconds));
  const parts = [
    [Math.floor(total / 86_400), "d"],
    [Math.floor(total / 3600) % 24, "h"],
    [Math.floor(total / 60) % 60, "min"],
    [total % 60, "s"],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  if (first < 0) return "0 s";
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(" ");
}

/** A Date of ISO text, epoch milliseconds or a Date; null if it is none. */
export function asDate(value) {
  if (missing(value)) return null;
  const date = value instanceof Date ? value : new Date(value);
  return Number.isNaN(date.getTime()) ? null : date;
}

/** "21 Nov 2026, 20:16" in the reader's time zone */
export function dateTime(value) {
  const date = asDate(value);
  return date ? moment.format(date) : UNKNOWN;
}

/** The same in full, for titles. */
export function exactTime(value) {
  const date = asDate(value);
  return date ? exact.format(date) : UNKNOWN;
}

/** "21 Nov 2026" */
export function date(value) {
  const found = asDate(value);
  return found ? day.format(found) : UNKNOWN;
}

/** "20:16" */
export function time(value) {
  const found = asDate(value);
  return found ? clock.format(found) : UNKNOWN;
}

const STEPS = [
  [60, 1, "s", "s"],
  [3600, 60, "min", "min"],
  [86_400, 3600, "h", "h"],
  [45 * 86_400, 86_400, "day", "days"],
  [540 * 86_400, 30.4 * 86_400, "month", "months"],
  [Infinity, 365 * 86_400, "year", "years"],
];

/** "3 min ago", "in 2 days" */
export function ago(value, now = Date.now()) {
  const found = asDate(value);
  if (!found) return UNKNOWN;
  const seconds = (found.getTime() - now) / 1000;
  const size = Math.abs(seconds);
  if (size < 5) return "just now";
  const [, unit, one, many] = STEPS.find(([end]) => size < end);
  const count = Math.max(1, Math.round(size / unit));
  const words = `${count} ${count === 1 ? one : many}`;
  return seconds < 0 ? `${words} ago` : `in ${words}`;
}
