/**
 * Dialogs over `<dialog>`: the browser keeps the focus inside, closes on Escape and gives the focus back.
 */

import { findFocus, h, icon, uniqueId } from "./dom.js";
import { busyWhile, button, errorState, field, textInput } from "./components.js";

/**
 * Show a dialog: `{element, close, closed}`; `closed` is fulfilled when it has gone.
 * @param {{title: string, body: Node|Node[], actions?: Node[], side?: boolean, wide?: boolean, persistent?: boolean}} what
 *   `side`: a panel at the edge; `persistent`: neither Escape nor a click beside it closes it (a key that is shown once)
 */
export function openDialog({ title, body, actions = [], side = false, wide = false, persistent = false }) {
  const id = uniqueId("dialog");
  const before = document.activeElement;
  const close = () => element.close();
  const closer = !persistent && h("button", { type: "button", class: "icon-button", "aria-label": "Close", title: "Close", onclick: close }, icon("close"));
  const element = h(
    "dialog",
    { class: ["dialog", side && "dialog-side", wide && "dialog-wide"], "aria-labelledby": id },
    h("div", { class: "dialog-head" }, h("h2", { id }, title), closer),
    h("div", { class: "dialog-body" }, body),
    actions.length > 0 && h("div", { class: "dialog-actions" }, actions),
  );
  if (persistent) element.addEventListener("cancel", (event) => event.preventDefault());
  element.addEventListener("mousedown", (event) => {
    if (event.target === element && !persistent && !element.querySelector("form.is-dirty")) close();
  });
  const closed = new Promise((resolve) => {
    element.addEventListener("close", () => {
      const toasts = element.querySelector(".toasts");
      if (toasts) document.body.append(toasts);
      element.remove();
      (before?.isConnected ? before : findFocus(before?.dataset.focus))?.focus();
      resolve();
    });
  });
  window.addEventListener("dashboard:navigate", close, { once: true });
  window.addEventListener("popstate", close, { once: true });
  document.body.append(element);
  element.showModal();
  return { element, close, closed };
}

/**
 * Ask before something is done. With `work`, the dialog stays until it is done and shows its error.
 * @param {{title: string, text: string|Node|Array, confirm: string, danger?: boolean, typed?: string, work?: () => Promise<*>}} what
 *   `typed`: the word that must be typed first
 * @returns {Promise<boolean>} whether it was confirmed and, with `work`, done
 */
export async function confirmDialog({ title, text, confirm, danger = false, typed, work }) {
  let done = false;
  const go = button(confirm, { kind: danger ? "danger" : "primary", type: "submit", disabled: Boolean(typed) });
  const problem = h("div");
  const box = typed && field("Type " + typed + " to confirm", textInput({ oninput: (event) => (go.disabled = event.target.value.trim() !== typed) }));
  const id = uniqueId("confirm");
  const form = h("form", { id, onsubmit: submit }, h("div", { class: "dialog-text" }, text), box?.element, problem);
  go.setAttribute("form", id);
  const stay = button("Cancel", { onclick: () => dialog.close() });
  const dialog = openDialog({ title, body: form, actions: [stay, go] });
  (box?.control ?? (danger ? stay : go)).focus();
  async function submit(event) {
    event.preventDefault();
    try {
      if (work) await busyWhile(go, work);
      done = true;
      dialog.close();
    } catch (error) {
      problem.replaceChildren(errorState(error));
    }
  }
  await dialog.closed;
  return done;
}

/**
 * A form in a dialog. It stays open while `submit` works and shows its error, at the field that `error.field` names.
 * @param {{title: string, fields: Array<{name: string, field: ReturnType<typeof field>, inside?: boolean}|Node>, submitLabel: string,
 *   submit: (values: Object<string, string>) => Promise<*>, intro?: Node|string, wide?: boolean}} what
 *   `inside`: the field stands in one of the nodes already
 * @returns {Promise<*>} what `submit` gave, or undefined where it was cancelled
 */
export async function formDialog({ title, fields, submitLabel, submit, intro, wide }) {
  let result;
  const id = uniqueId("form");
  const go = button(submitLabel, { kind: "primary", type: "submit" });
  go.setAttribute("form", id);
  const problem = h("div");
  const named = fields.filter((one) => one.field);
  const nodes = fields.filter((one) => !one.inside).map((one) => (one.field ? one.field.element : one));
  const form = h("form", { id, class: "form", novalidate: true, onsubmit: send, oninput: () => form.classList.add("is-dirty") }, intro && h("p", { class: "dialog-text" }, intro), nodes, problem);
  const dialog = openDialog({ title, body: form, wide, actions: [button("Cancel", { onclick: () => dialog.close() }), go] });
  async function send(event) {
    event.preventDefault();
    problem.replaceChildren();
    for (const { field: one } of named) one.setError("");
    const values = Object.fromEntries(named.map(({ name, field: one }) => [name, one.control.type === "checkbox" ? one.control.checked : one.control.value]));
    try {
      result = await busyWhile(go, () => submit(values));
      dialog.close();
    } catch (error) {
      const at = named.find(({ name }) => error.field && (error.field === name || name.endsWith(`.${error.field}`)));
      if (at) {
        at.field.setError(error.message);
        at.field.element.closest("details")?.setAttribute("open", "");
        at.field.control.focus();
      } else {
        problem.replaceChildren(errorState(error));
      }
    }
  }
  named[0]?.field.control.focus();
  await dialog.closed;
  return result;
}
