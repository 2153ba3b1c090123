/**
 * The playground: chat with any model through a vault, streamed, and see exactly what memory did with each message.
 * Keeps the conversation in the page only.
 */

import { api } from "../api.js";
import { button, card, errorState, field, iconButton, page, select, textInput } from "../components.js";
import { chatInspector } from "../chat_inspector.js";
import { h, replace, setText, uniqueId } from "../dom.js";
import { milliseconds, plural } from "../format.js";
import { debounce, isAbort } from "../live.js";
import { setQuery } from "../router.js";

export const title = "Playground";

const LOCAL = "local/recall";
const MODES = [
  ["on", "Read and write"],
  ["read", "Read only"],
  ["write", "Write only"],
  ["off", "Off"],
];
const SUGGESTED = 20;
const TYPING_MS = 200;

/** Show it. */
export async function show(root, { query, signal }) {
  const body = page(root, { title: "Playground", lead: "Chats here are real: they count, and they are remembered unless memory is off." });
  const options = optionsBar(query, signal);
  const inspector = chatInspector(signal);
  const chat = conversation({ options, inspector, signal });
  replace(body, options.element, h("div", { class: "playground" }, chat.element, inspector.element));
  chat.focus();
}

/** What a chat is sent with: `{element, values()}`. */
function optionsBar(query, signal) {
  const listOf = (options) => h("datalist", { id: uniqueId("list") }, options);
  const models = listOf([h("option", { value: LOCAL })]);
  const vaults = listOf([]);
  const model = textInput({ value: query.get("model") ?? LOCAL, list: models.id });
  const vault = textInput({ value: query.get("vault") ?? "", list: vaults.id, placeholder: "The account's own" });
  const mode = select(MODES, { value: query.get("mode") ?? "on" });
  const session = textInput({ value: query.get("session") ?? "" });
  const system = h("textarea", { class: "input", rows: 2, spellcheck: "false" });
  const fresh = iconButton("plus", "New session", () => {
    session.value = `try-${crypto.getRandomValues(new Uint32Array(1))[0].toString(36)}`;
    remember();
  });

  function values() {
    return { model: model.value.trim(), vault: vault.value.trim(), mode: mode.value, session: session.value.trim(), system: system.value.trim() };
  }

  function remember() {
    const { system: _, ...kept } = values();
    setQuery(kept);
  }

  const suggest = debounce(async () => {
    try {
      const { data } = await api.get("v1/keys", { query: { search: vault.value.trim(), limit: SUGGESTED }, signal });
      replace(vaults, data.map((key) => h("option", { value: key.vault_id, label: `${key.name} (${key.vault_id})` })));
    } catch {
      replace(vaults); // an id can be typed all the same
    }
  }, TYPING_MS, signal);
  vault.addEventListener("input", suggest);
  vault.addEventListener("focus", suggest, { once: true });
  fillModels(models, signal);
  const grid = h(
    "div",
    { class: "playground-options", oninput: remember },
    field("Model", model).element,
    field("Vault", vault).element,
    field("Memory", mode).element,
    h("div", { class: "with-button" }, field("Session", session, { optional: true }).element, fresh),
  );
  const instructions = h("details", { class: "playground-system" }, h("summary", null, "System prompt"), field("Instructions for the model", system).element);
  return { element: h("div", { class: "playground-bar" }, grid, instructions, models, vaults), values };
}

async function fillModels(list, signal) {
  try {
    const { data } = await api.get("v1/models", { signal });
    replace(list, data.map(({ id }) => h("option", { value: id })));
  } catch {
    replace(list, h("option", { value: LOCAL })); // a name can be typed all the same
  }
}

/** The messages, and the box to write the next one in. */
function conversation({ options, inspector, signal }) {
  const said = []; // as the model gets it
  const log = h("div", { class: "chat-log", role: "log", "aria-label": "Conversation", tabindex: "0" });
  const text = h("textarea", { class: "input", rows: 3, placeholder: "Say something" });
  const send = button("Send", { kind: "primary", type: "submit" });
  const stop = button("Stop", { icon: "stop", hidden: true });
  const clear = button("New conversation", { kind: "quiet", small: true, onclick: reset });
  const form = h("form", { class: "composer", onsubmit: (event) => (event.preventDefault(), ask()) }, field("Message", text).element, h("div", { class: "button-row" }, send, stop, clear));
  text.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    ask();
  });
  let running = null;
  signal.addEventListener("abort", () => running?.abort());
  stop.addEventListener("click", () => running?.abort());
  reset();

  function reset() {
    running?.abort();
    said.length = 0;
    replace(log, h("p", { class: "chat-hint muted" }, `${LOCAL} answers from the vault's memories, without any provider. Every other model needs a provider's key.`));
    inspector.clear();
  }

  async function ask() {
    const question = text.value.trim();
    if (!question || running) return;
    const { model, vault, mode, session, system } = options.values();
    running = new AbortController();
    busy(true);
    if (said.length === 0) replace(log);
    const turn = turnOf(log, question, model, inspector);
    text.value = "";
    const messages = [...(system ? [{ role: "system", content: system }] : []), ...said, { role: "user", content: question }];
    try {
      await turn.follow(await api.stream("v1/chat/completions", {
        vault: vault || undefined,
        signal: running.signal,
        body: { model, messages, stream: true, memory_mode: mode, session_id: session || undefined },
      }));
      said.push({ role: "user", content: question }, { role: "assistant", content: turn.text() });
    } catch (error) {
      if (signal.aborted) return;
      if (isAbort(error)) turn.stopped();
      else turn.failed(error);
      if (!text.value) text.value = question; // to be sent again as it is, or changed
    } finally {
      running = null;
      busy(false);
    }
    if (turn.requestId()) inspector.show(turn.requestId());
    text.focus();
  }

  function busy(on) {
    send.disabled = on;
    stop.hidden = !on;
  }

  const element = card({ title: "Conversation" }, log, form);
  return { element, focus: () => text.focus({ preventScroll: true }) };
}

/** A question and its answer, as they come. */
function turnOf(log, question, model, inspector) {
  const answer = h("p", { class: "chat-text" });
  const facts = h("p", { class: "chat-facts muted" }, model);
  const reply = h("article", { class: "chat-turn is-assistant", "aria-label": "Assistant" }, answer, facts);
  const beganMs = performance.now();
  let firstMs = 0;
  let content = "";
  let requestId = "";
  log.append(h("article", { class: "chat-turn is-user", "aria-label": "You" }, h("p", { class: "chat-text" }, question)), reply);
  log.scrollTop = log.scrollHeight;

  function add(piece) {
    if (!piece) return;
    firstMs ||= performance.now() - beganMs;
    content += piece;
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
    setText(answer, content);
    if (follows) log.scrollTop = log.scrollHeight;
  }

  function close(...notes) {
    const look = requestId && button("What memory did", { small: true, kind: "quiet", onclick: () => inspector.show(requestId) });
    replace(facts, [model, firstMs && `first word after ${milliseconds(firstMs)}`, ...notes].filter(Boolean).join(" · "), " ", look);
    log.scrollTop = log.scrollHeight;
  }

  return {
    text: () => content,
    requestId: () => requestId,
    async follow({ headers, events }) {
      requestId = headers.get("X-Request-ID") ?? "";
      let tokens = 0;
      for await (const { data } of events) {
        if (data === "[DONE]") break;
        const chunk = JSON.parse(data);
        if (chunk.error) throw new Error(chunk.error.message ?? "The reply broke off.");
        add(chunk.choices?.[0]?.delta?.content);
        tokens = chunk.usage?.completion_tokens ?? tokens;
      }
      close(tokens && plural(tokens, "token"));
    },
    stopped: () => close("stopped"),
    failed(error) {
      requestId ||= error.requestId;
      reply.insertBefore(errorState(error), facts);
      close();
    },
  };
}
