/**
 * The parts that screens are made of. Each function gives an element; none keeps state but the toasts' list.
 * Dialogs stand in dialogs.js, lists in tables.js; both are offered from here too.
 */

import { h, hidden, icon, replace, setText, uniqueId } from "./dom.js";
import { ago, exactTime, asDate, UNKNOWN } from "./format.js";
import { debounce } from "./live.js";

export { openDialog, confirmDialog, formDialog } from "./dialogs.js";
export { pagedTable, simpleTable } from "./tables.js";

/**
 * A button. @param {string} label
 * @param {{kind?: "primary"|"danger"|"quiet", icon?: string, onclick?: Function, type?: string, small?: boolean,
 *   disabled?: boolean, title?: string, class?: string}} [options]
 */
export function button(label, { kind = "", icon: name, onclick, type = "button", small = false, ...rest } = {}) {
  const { class: extra, ...props } = rest;
  const names = ["button", kind && `button-${kind}`, small && "button-small", extra];
  return h("button", { ...props, type, class: names, onclick }, name && icon(name), h("span", null, label));
}

/** A button that shows only an icon; the label is spoken and shown on hover. */
export function iconButton(name, label, onclick, props = {}) {
  return h("button", { type: "button", class: "icon-button", title: label, "aria-label": label, onclick, ...props }, icon(name));
}

/** A link that looks like a button. */
export function linkButton(label, address, { kind = "", icon: name, small = false, ...props } = {}) {
  const names = ["button", kind && `button-${kind}`, small && "button-small"];
  return h("a", { href: address, class: names, ...props }, name && icon(name), h("span", null, label));
}

/** While work is under way, a button is disabled and says that it is busy. */
export async function busyWhile(element, work) {
  element.disabled = true;
  element.setAttribute("aria-busy", "true");
  try {
    return await work();
  } finally {
    element.disabled = false;
    element.removeAttribute("aria-busy");
  }
}

/**
 * The frame of a screen: its title, a line about it, its actions; gives the element for the content.
 * @param {Element} root
 * @param {{title: string, lead?: string|Node, actions?: Node[], back?: {href: string, label: string}}} what
 */
export function page(root, { title, lead, actions = [], back }) {
  const body = h("div", { class: "page-body" });
  const heading = h("h1", { tabindex: "-1" }, title);
  replace(
    root,
    h(
      "header",
      { class: "page-header" },
      h("div", { class: "page-title" }, back && h("a", { class: "page-back", href: back.href }, icon("left"), back.label), heading, lead && h("p", { class: "page-lead" }, lead)),
      actions.length > 0 && h("div", { class: "page-actions" }, actions),
    ),
    body,
  );
  return body;
}

/** A panel with a heading. @param {{title?: string, note?: string|Node, actions?: Node[], class?: string}} what */
export function card({ title, note, actions = [], class: extra }, ...children) {
  const id = uniqueId("card");
  const head = title && h("div", { class: "card-head" }, h("h2", { id }, title), note && h("p", { class: "card-note" }, note), actions.length > 0 && h("div", { class: "card-actions" }, actions));
  return h("section", { class: ["card", extra], "aria-labelledby": title ? id : null }, head, children);
}

/** A figure with its name: `{element, set(value, note)}`. */
export function stat(label, { note = "", title } = {}) {
  const figure = h("dd", { class: "stat-value" }, UNKNOWN);
  const below = h("dd", { class: "stat-note" }, note);
  const element = h("div", { class: "stat", title }, h("dt", { class: "stat-label" }, label), figure, below);
  return {
    element,
    set(value, text = note) {
      setText(figure, value);
      setText(below, text);
    },
  };
}

/**
 * A labelled control with a hint and room for an error: `{element, control, setError(text)}`.
 * @param {string} label
 * @param {HTMLElement} control input, select or textarea
 * @param {{hint?: string|Node, optional?: boolean}} [options]
 */
export function field(label, control, { hint, optional = false } = {}) {
  if (!control.id) control.id = uniqueId("field");
  const problem = h("p", { class: "field-error", id: `${control.id}-error`, hidden: true });
  const about = hint && h("p", { class: "field-hint", id: `${control.id}-hint` }, hint);
  control.setAttribute("aria-describedby", [about && about.id, problem.id].filter(Boolean).join(" "));
  const name = h("label", { for: control.id }, label, optional && h("span", { class: "field-optional" }, " optional"));
  return {
    element: h("div", { class: "field" }, name, control, about, problem),
    control,
    setError(text) {
      problem.hidden = !text;
      setText(problem, text || "");
      if (text) control.setAttribute("aria-invalid", "true");
      else control.removeAttribute("aria-invalid");
    },
  };
}

/** A text input; never filled in by browsers. */
export function textInput(props = {}) {
  return h("input", { type: "text", class: "input", autocomplete: "off", spellcheck: "false", ...props });
}

/** @param {Array<[string, string]>} options value and label */
export function select(options, { value, ...props } = {}) {
  const element = h("select", { class: "input", ...props }, options.map(([key, label]) => h("option", { value: key }, label)));
  if (value !== undefined) element.value = value;
  return element;
}

/** A checkbox with its label: `{element, control}`. */
export function checkbox(label, props = {}) {
  const control = h("input", { type: "checkbox", ...props });
  return { element: h("label", { class: "checkbox" }, control, h("span", null, label)), control };
}

/** A search box that calls back once typing pauses. @param {{label: string, value?: string, onsearch: (text: string) => void, signal?: AbortSignal}} what */
export function searchField({ label, value = "", onsearch, signal, waitMs = 200, ...props }) {
  const control = h("input", { type: "search", class: "input", value, placeholder: label, "aria-label": label, autocomplete: "off", spellcheck: "false", ...props });
  const later = debounce(() => onsearch(control.value.trim()), waitMs, signal);
  control.addEventListener("input", later);
  return h("div", { class: "search" }, icon("search"), control);
}

/** A small label of a state. @param {"ok"|"warning"|"danger"|"accent"|"neutral"} kind */
export function badge(text, kind = "neutral", props = {}) {
  return h("span", { class: ["badge", `badge-${kind}`], ...props }, text);
}

/** A time as people say it, the exact one on hover. @param {string|number|null} value */
export function when(value, absent = "never") {
  const found = asDate(value);
  if (!found) return h("span", { class: "muted" }, absent);
  return h("time", { datetime: found.toISOString(), title: exactTime(found) }, ago(found));
}

/**
 * Copies a text and says so. @param {string|(() => string)} text
 * @param {{label?: string, small?: boolean, kind?: string, spoken?: string}} [options] `spoken`: what screen readers say
 */
export function copyButton(text, { label = "Copy", small = true, kind = "", spoken: said } = {}) {
  const word = h("span", null, label);
  const spoken = h("span", { class: "visually-hidden", "aria-live": "polite" });
  const element = h("button", { type: "button", class: ["button", small && "button-small", kind && `button-${kind}`, "copy-button"], "aria-label": said, onclick: copy }, icon("copy"), word, spoken);
  async function copy() {
    const done = await copyText(typeof text === "function" ? text() : text, element);
    element.classList.toggle("is-done", done);
    element.firstChild.replaceWith(icon(done ? "check" : "warning"));
    setText(word, done ? "Copied" : "Select and copy");
    setText(spoken, done ? "Copied" : "");
    window.setTimeout(() => {
      element.classList.remove("is-done");
      element.firstChild.replaceWith(icon("copy"));
      setText(word, label);
      setText(spoken, "");
    }, 2000);
  }
  return element;
}

/** Put a text on the clipboard; also where the page has no TLS and browsers withhold the newer way. @returns {Promise<boolean>} */
async function copyText(text, near = document.body) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const box = h("textarea", { class: "visually-hidden", value: text, readonly: true, "aria-hidden": "true" });
    (near.closest("dialog") ?? document.body).append(box);
    box.select();
    const done = document.execCommand("copy");
    box.remove();
    near.focus?.();
    return done;
  }
}

/** Lines to copy. @param {string} text */
export function codeBlock(text, { label = "Copy", name = "Code" } = {}) {
  return h("div", { class: "code" }, h("pre", { tabindex: "0", role: "region", "aria-label": name }, h("code", null, text)), copyButton(text, { label }));
}

/** What to do where there is nothing yet. @param {{title: string, text?: string|Node, code?: string, actions?: Node[]}} what */
export function emptyState({ title, text, code, actions = [] }) {
  return h(
    "div",
    { class: "empty" },
    h("p", { class: "empty-title" }, title),
    text && h("p", { class: "empty-text" }, text),
    code && codeBlock(code),
    actions.length > 0 && h("div", { class: "empty-actions" }, actions),
  );
}

/** An error with its hint and, where it makes sense, a button to try again. @param {Error} error */
export function errorState(error, retry) {
  const reference = error.requestId && h("p", { class: "error-reference" }, "Request ", h("code", null, error.requestId));
  return h(
    "div",
    { class: "error-state", role: "alert" },
    h("p", { class: "error-title" }, icon("warning"), h("span", null, error.message)),
    error.hint && h("p", { class: "error-hint" }, error.hint),
    reference,
    retry && button("Try again", { icon: "refresh", small: true, onclick: retry }),
  );
}

/** A line of news inside a page. @param {"info"|"warning"|"danger"} kind */
export function notice(kind, ...children) {
  return h("div", { class: ["notice", `notice-${kind}`] }, icon(kind === "info" ? "info" : "warning"), h("div", null, children));
}

/** Grey lines while something is loaded. */
export function skeleton(lines = 3) {
  return h("div", { class: "skeleton", "aria-busy": "true" }, hidden("Loading"), Array.from({ length: lines }, () => h("span", { class: "skeleton-line" })));
}

/** A progress bar: `{element, set(done, total, text)}`. */
export function progress(label) {
  const bar = h("progress", { max: "1", value: 0, "aria-label": label });
  const text = h("p", { class: "progress-text", "aria-live": "polite" });
  return {
    element: h("div", { class: "progress" }, bar, text),
    set(done, total, said = "") {
      bar.max = total || 1;
      bar.value = done;
      setText(text, said);
    },
  };
}

/**
 * Tabs. Panels are made when first shown. @param {Array<{id: string, label: string, panel: () => Node}>} list
 * @param {{label: string, selected?: string, onselect?: (id: string) => void}} options
 */
export function tabs(list, { label, selected = list[0].id, onselect }) {
  const name = uniqueId("tabs");
  const panels = new Map();
  const place = h("div", { class: "tab-panels" });
  const buttons = list.map(({ id, label: text }) =>
    h("button", { type: "button", role: "tab", id: `${name}-${id}`, "aria-controls": `${name}-${id}-panel`, class: "tab", dataset: { tab: id }, onclick: () => choose(id, { focus: false }) }, text),
  );
  function choose(id, { focus }) {
    for (const [index, { id: other, panel }] of list.entries()) {
      const chosen = other === id;
      buttons[index].setAttribute("aria-selected", String(chosen));
      buttons[index].tabIndex = chosen ? 0 : -1;
      if (chosen && !panels.has(id)) {
        panels.set(id, h("div", { role: "tabpanel", id: `${name}-${id}-panel`, "aria-labelledby": `${name}-${id}`, class: "tab-panel" }, panel()));
        place.append(panels.get(id));
      }
      if (panels.has(other)) panels.get(other).hidden = !chosen;
      if (chosen && focus) buttons[index].focus();
    }
    onselect?.(id);
  }
  const bar = h("div", { role: "tablist", "aria-label": label, class: "tab-list", onkeydown: move }, buttons);
  function move(event) {
    const at = buttons.findIndex((one) => one.getAttribute("aria-selected") === "true");
    const steps = { ArrowRight: at + 1, ArrowLeft: at - 1 + list.length, Home: 0, End: list.length - 1 };
    if (!(event.key in steps)) return;
    event.preventDefault();
    choose(list[steps[event.key] % list.length].id, { focus: true });
  }
  choose(list.some(({ id }) => id === selected) ? selected : list[0].id, { focus: false });
  return { element: h("div", { class: "tabs" }, bar, place), select: (id) => choose(id, { focus: false }) };
}

const toasts = h("div", { class: "toasts", role: "status", "aria-live": "polite" });

/** Say shortly what was done. @param {"ok"|"danger"} kind */
export function toast(message, kind = "ok") {
  if (!toasts.isConnected) document.body.append(toasts);
  // A modal dialog makes the rest of the page inert: news must be inside it.
  const dialog = document.querySelector("dialog[open]");
  if (dialog) dialog.append(toasts);
  const element = h("div", { class: ["toast", `toast-${kind}`] }, icon(kind === "ok" ? "check" : "warning"), h("span", null, message), iconButton("close", "Dismiss", () => element.remove()));
  toasts.append(element);
  window.setTimeout(() => element.remove(), kind === "ok" ? 5000 : 10_000);
}

/** Say that something failed. @param {Error} error */
export function toastError(error) {
  toast([error.message, error.hint].filter(Boolean).join(" "), "danger");
}
