// The Anthropic SDK for Node: what its users do and expect.
import assert from "node:assert/strict";
import Anthropic from "@anthropic-ai/sdk";
import {
  collect, HELLO, KEY, OWN_KEY, PICTURE, PIXEL, play, QUESTION, SCHEMA, SUNNY, URL, waitsAsAsked, WRONG_KEY,
} from "./scenes.mjs";

const client = (options = {}) => new Anthropic({ baseURL: URL, apiKey: KEY, maxRetries: 0, ...options });
const ask = [{ role: "user", content: QUESTION }];
const tools = [{ name: "get_weather", input_schema: SCHEMA }];
const request = (scene, options = {}) => ({ model: `claude-${scene}`, max_tokens: 100, messages: ask, ...options });

await play({
  async messages() {
    const reply = await client().messages.create(request("hello"));
    assert.equal(reply.content[0].text, HELLO);
    assert.ok(reply._request_id);
    const events = await collect(await client().messages.create({ ...request("hello"), stream: true }));
    assert.equal(events.at(-1).type, "message_stop");
    assert.equal(await client().messages.stream(request("hello")).finalText(), HELLO);
  },
  async tools() {
    const first = await client().messages.stream(request("tools", { tools })).finalMessage();
    assert.deepEqual(first.content[0].input, { city: "Lisbon" });
    const result = { type: "tool_result", tool_use_id: first.content[0].id, content: "sunny" };
    const messages = [...ask, { role: "assistant", content: first.content }, { role: "user", content: [result] }];
    assert.equal((await client().messages.create(request("tools", { messages, tools }))).content[0].text, SUNNY);
  },
  async image() {
    const source = { type: "base64", media_type: "image/png", data: PIXEL };
    const content = [{ type: "image", source }, { type: "text", text: QUESTION }];
    const reply = await client().messages.create(request("image", { messages: [{ role: "user", content }] }));
    assert.equal(reply.content[0].text, PICTURE);
  },
  async count_tokens() {
    assert.equal((await client().messages.countTokens({ model: "claude-hello", messages: ask })).input_tokens, 42);
  },
  async errors() {
    await assert.rejects(client({ apiKey: WRONG_KEY }).messages.create(request("hello")), Anthropic.AuthenticationError);
    await assert.rejects(client().messages.create(request("hello", { model: "nobody/m" })), Anthropic.NotFoundError);
    await assert.rejects(client().messages.create(request("busy")), Anthropic.RateLimitError);
    await assert.rejects(client().messages.stream(request("cut")).finalMessage(), Anthropic.APIError);
  },
  async retries() {
    const reply = await waitsAsAsked(() => client({ maxRetries: 2 }).messages.create(request("busy-once")));
    assert.equal(reply.content[0].text, HELLO);
  },
  async own_key() {
    await client({ apiKey: OWN_KEY, defaultHeaders: { "X-Memory-Key": KEY } }).messages.create(request("own"));
  },
});
