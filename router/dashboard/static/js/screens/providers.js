/** The providers: which there are, whose key counts, how they are doing; storing, checking and removing a key. */

import { api } from "../api.js";
import { badge, button, busyWhile, checkbox, confirmDialog, emptyState, errorState, field, formDialog, page, simpleTable, skeleton, toast, when } from "../components.js";
import { h, replace } from "../dom.js";
import { UNKNOWN } from "../format.js";
import { isAbort } from "../live.js";

export const title = "Providers";

const SOURCES = {
  account: ["Your key", "ok"],
  server: ["The server's key", "accent"],
  none: ["No key", "neutral"],
};
const STATES = {
  ok: ["answers", "ok"],
  failing: ["fails", "warning"],
  open: ["refused for now", "danger"],
};
const MEANINGS = {
  failing: "Its last calls failed.",
  open: "Too many calls in a row failed: it is not asked for a while.",
};

/** Show it. */
export async function show(root, { signal }) {
  const body = page(root, { title: "Providers", lead: "A key that is stored here is used for every chat of this account's Memory Keys. It is sealed, and never shown again." });
  const place = h("div", null, skeleton(6));
  const checks = new Map(); // what the last check of this visit said
  replace(body, place);
  await draw();

  async function draw() {
    try {
      const [{ data }, health] = await Promise.all([api.get("v1/providers", { signal }), healthOf(signal)]);
      if (signal.aborted) return;
      replace(place, data.length ? h("div", { class: "list providers" }, tableOf(data, health)) : emptyState({ title: "No providers are configured.", text: "They stand in config.toml, one table each." }));
    } catch (error) {
      if (!isAbort(error)) replace(place, errorState(error, draw));
    }
  }

  function tableOf(rows, health) {
    return simpleTable({
      caption: "Providers",
      rows,
      columns: [
        { label: "Provider", header: true, cell: nameOf },
        { label: "Key", cell: keyOf },
        { label: "Stored", from: "wide", cell: (row) => (row.stored_at ? when(row.stored_at) : "") },
        { label: "State", from: "medium", cell: (row) => stateOf(row, health.get(row.name), checks.get(row.name)) },
        { label: "Actions", hideLabel: true, end: true, cell: actionsOf },
      ],
    });
  }

  function actionsOf(row) {
    const own = row.key_source === "account";
    const check = button("Check", { small: true, "aria-label": `Check ${row.name}`, onclick: () => busyWhile(check, () => checkKey(row)) });
    return h(
      "div",
      { class: "row-actions" },
      row.configured && button(own ? "Replace key" : "Add key", { small: true, "aria-label": `${own ? "Replace key" : "Add key"}: ${row.name}`, onclick: () => storeKey(row) }),
      row.configured && row.key_source !== "none" && check,
      own && button("Remove", { small: true, kind: "quiet", "aria-label": `Remove key: ${row.name}`, onclick: () => removeKey(row) }),
    );
  }

  async function checkKey(row) {
    try {
      checks.set(row.name, await api.post(`v1/providers/${row.name}/key/check`, { body: {}, signal }));
    } catch (error) {
      if (isAbort(error)) return;
      checks.set(row.name, { ok: false, error: error.message });
    }
    const said = checks.get(row.name);
    toast(said.ok ? `${row.name} takes the key.` : `${row.name}: ${outcomeOf(said)}.`, said.ok ? "ok" : "danger");
    await draw();
  }

  async function storeKey(row) {
    const key = field("Key", h("input", { type: "password", class: "input", autocomplete: "off", spellcheck: "false" }), { hint: `Goes to ${row.host ?? "the provider"} and nowhere else.` });
    const check = checkbox("Check it with the provider first", { checked: true });
    const stored = await formDialog({
      title: `Key for ${row.name}`,
      submitLabel: "Store key",
      fields: [{ name: "key", field: key }, { name: "check", field: { ...check, setError: () => {} } }],
      submit: (values) => api.put(`v1/providers/${row.name}/key`, { body: { key: values.key, check: values.check } }),
    });
    if (!stored) return;
    if (stored.check) checks.set(row.name, stored.check);
    else checks.delete(row.name);
    toast(`The key for ${row.name} is stored.`);
    await draw();
  }

  async function removeKey(row) {
    const done = await confirmDialog({
      title: `Remove the key for ${row.name}?`,
      text: h("p", null, "It is shredded here. Chats through this account need the server's key or one of their own from now on. At the provider it stays valid."),
      confirm: "Remove key",
      danger: true,
      work: () => api.delete(`v1/providers/${row.name}/key`),
    });
    if (!done) return;
    checks.delete(row.name);
    toast(`The key for ${row.name} is removed.`);
    await draw();
  }
}

/** How providers are doing, by name; nothing where the overview cannot be had. */
async function healthOf(signal) {
  try {
    const { providers } = await api.get("overview", { signal });
    return new Map((providers ?? []).map((provider) => [provider.name, provider]));
  } catch (error) {
    if (isAbort(error)) throw error;
    return new Map();
  }
}

function nameOf(row) {
  const prefixes = row.prefixes.filter((prefix) => prefix !== row.name).map((prefix) => `${prefix}/…`);
  return h(
    "div",
    { class: "provider-name" },
    h("span", null, row.name),
    h("span", { class: "muted" }, row.configured ? [row.host, ...prefixes].filter(Boolean).join(" · ") : "not configured any more"),
  );
}

function keyOf(row) {
  const [words, kind] = SOURCES[row.key_source] ?? [row.key_source, "neutral"];
  return h("span", { class: "provider-key" }, badge(words, kind), row.last_four && h("span", { class: "mono muted" }, `…${row.last_four}`));
}

function stateOf(row, health, checked) {
  if (checked) return h("span", null, checked.ok ? badge("takes the key", "ok") : badge(outcomeOf(checked), "danger"), " ", checked.checked_at && when(checked.checked_at));
  const [words, kind] = STATES[health?.state] ?? ["", ""];
  if (!words) return h("span", { class: "muted" }, row.key_source === "none" ? UNKNOWN : "not asked yet");
  return badge(words, kind, { title: [MEANINGS[health.state], health.last_error_status && `The last error was ${health.last_error_status}.`].filter(Boolean).join(" ") || null });
}

function outcomeOf({ status, error }) {
  if (status === 401 || status === 403 || status === 400) return `refuses the key (${status})`;
  return status ? `answers ${status}` : (error ?? "cannot be asked").replaceAll("_", " ");
}
