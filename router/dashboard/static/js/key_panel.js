/** One key at the side of the list: what it is, and all that can be done with it. */

import { api } from "./api.js";
import { badge, button, copyButton, errorState, linkButton, openDialog, toastError, when } from "./components.js";
import { h, replace } from "./dom.js";
import { bytes, dateTime, number } from "./format.js";
import { deleteKey, expireKey, limitKey, renameKey, revokeKey, rotateKey, switchKey } from "./key_dialogs.js";
import { isAbort } from "./live.js";
import { href } from "./router.js";
import { limitsText, stateBadge } from "./screens/keys.js";

/**
 * Show a key until its panel is closed.
 * @param {Object} first as the list has it
 * @param {{signal: AbortSignal, onchange: () => void, oncreate: (vaultId: string) => void}} what
 */
export async function openKey(first, { signal, onchange, oncreate }) {
  let key = first;
  const place = h("div", { class: "key-panel" });
  const dialog = openDialog({ title: "Key", side: true, body: place });
  const heading = dialog.element.querySelector("h2");
  signal.addEventListener("abort", dialog.close);
  draw();
  await dialog.closed;

  function draw() {
    const over = key.state === "revoked";
    replace(heading, key.name);
    replace(place, h("div", { class: "badges" }, stateBadge(key), key.kind === "account" && badge("Account", "accent")), facts(key), over ? afterwards() : actions(), over ? null : danger());
  }

  function actions() {
    const account = key.kind === "account";
    return h(
      "div",
      { class: "key-actions", role: "group", "aria-label": "Actions" },
      act("Rename", "edit", renameKey),
      !key.rotated_to && act("Rotate", "refresh", rotateKey),
      !account && act("Limits", "gauge", limitKey),
      !account && act("Expiry", "clock", expireKey),
      act(key.state === "disabled" ? "Enable" : "Disable", key.state === "disabled" ? "play" : "stop", switchKey),
      linkButton("Open vault", href(`/vaults/${key.vault_id}`), { icon: "vaults", small: true }),
    );
  }

  function danger() {
    return h(
      "section",
      { class: "danger-zone", "aria-label": "End the key" },
      h("p", { class: "muted" }, "Revoking keeps the vault for another key. Deleting shreds it."),
      h("div", { class: "key-actions" }, end("Revoke", revokeKey), end("Delete with its vault", deleteKey)),
    );
  }

  function afterwards() {
    return h(
      "div",
      { class: "key-panel" },
      h("p", null, "This key has ended. If its vault was kept, a new key can open it."),
      h("div", { class: "key-actions" }, button("New key for its vault", { icon: "plus", small: true, onclick: again }), linkButton("Open vault", href(`/vaults/${key.vault_id}`), { icon: "vaults", small: true })),
    );
  }

  function again() {
    dialog.close();
    oncreate(key.vault_id);
  }

  function act(label, icon, work) {
    return button(label, { icon, small: true, onclick: () => change(work) });
  }

  function end(label, work) {
    return button(label, { kind: "danger", small: true, onclick: () => change(work) });
  }

  async function change(work) {
    try {
      if (!(await work(key))) return;
      onchange();
      key = await api.get(`v1/keys/${key.id}`, { signal });
      draw();
      dialog.element.querySelector(".key-actions button")?.focus();
    } catch (error) {
      if (isAbort(error)) return;
      if (error.status === 404) replace(place, errorState(error));
      else toastError(error);
    }
  }
}

function facts(key) {
  const rows = [
    ["Key", h("span", null, h("code", null, key.prefix), h("span", { class: "muted" }, " shown once, when it was made"))],
    ["Id", h("span", { class: "copyable" }, h("code", null, key.id), copyButton(key.id, { label: "Copy", kind: "quiet" }))],
    ["Vault", h("span", null, h("a", { href: href(`/vaults/${key.vault_id}`) }, key.vault_id), ` · ${number(key.vault_memories)} memories · ${bytes(key.vault_bytes)}`)],
    ["Created", dateTime(key.created_at)],
    ["Last used", when(key.last_used_at)],
    ["Expires", key.expires_at ? h("span", null, dateTime(key.expires_at), " (", when(key.expires_at), ")") : "never"],
    ["Limits", limitsText(key.limits) || "as the server's settings say"],
    key.rotated_to && ["Replaced by", key.rotated_to],
    key.disabled_at && ["Disabled", when(key.disabled_at)],
    key.revoked_at && ["Revoked", when(key.revoked_at)],
  ].filter(Boolean);
  return h("dl", { class: "facts" }, rows.map(([name, value]) => [h("dt", null, name), h("dd", null, value)]));
}
