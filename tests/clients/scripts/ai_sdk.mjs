// The Vercel AI SDK with its OpenAI (Chat and Responses), Anthropic and Google providers: what its users do and expect.
import assert from "node:assert/strict";
import { createAnthropic } from "@ai-sdk/anthropic";
import { createGoogleGenerativeAI } from "@ai-sdk/google";
import { createOpenAI } from "@ai-sdk/openai";
import { APICallError, embed, generateText, isStepCount, jsonSchema, Output, streamText, tool } from "ai";
import {
  HELLO, KEY, OWN_KEY, PICTURE, PIXEL, play, QUESTION, SCHEMA, SUNNY, URL, waitsAsAsked, WRONG_KEY,
} from "./scenes.mjs";

const made = (apiKey, headers = {}) => {
  const openai = createOpenAI({ baseURL: `${URL}/v1`, apiKey, headers });
  const anthropic = createAnthropic({ baseURL: `${URL}/v1`, apiKey, headers });
  const google = createGoogleGenerativeAI({ baseURL: `${URL}/v1beta`, apiKey, headers });
  return {
    chat: (scene) => openai.chat(`gpt-${scene}`),
    translated: (scene) => openai.chat(`anthropic/claude-${scene}`),
    responses: (scene) => openai.responses(`gpt-${scene}`),
    anthropic: (scene) => anthropic(`claude-${scene}`),
    google: (scene) => google(`gemini-${scene}`),
    embedding: (name) => openai.embeddingModel(name),
  };
};
const providers = made(KEY);
const chats = Object.entries(providers).filter(([name]) => name !== "embedding");
const options = { prompt: QUESTION, maxRetries: 0 };
const tools = {
  get_weather: tool({ description: "The weather.", inputSchema: jsonSchema(SCHEMA), execute: async ({ city }) => city }),
};

async function each(action) {
  const failures = [];
  for (const [name, model] of chats) {
    try {
      await action(model, name);
    } catch (error) {
      failures.push(new Error(name, { cause: error }));
    }
  }
  if (failures.length) throw new AggregateError(failures);
}

await play({
  text: () =>
    each(async (model) => {
      const { text, finishReason } = await generateText({ ...options, model: model("hello") });
      assert.deepEqual([text, finishReason], [HELLO, "stop"]);
    }),
  stream: () =>
    each(async (model) => {
      const result = streamText({ ...options, model: model("hello") });
      let text = "";
      for await (const piece of result.textStream) text += piece;
      assert.deepEqual([text, await result.finishReason], [HELLO, "stop"]);
      assert.ok((await result.usage).totalTokens > 0);
    }),
  tools: () =>
    each(async (model) => {
      const result = await generateText({ ...options, model: model("tools"), tools, stopWhen: isStepCount(3) });
      assert.equal(result.text, SUNNY);
      assert.deepEqual(result.steps[0].toolCalls[0].input, { city: "Lisbon" });
    }),
  tools_stream: () =>
    each(async (model) => {
      const result = streamText({ ...options, model: model("tools"), tools, stopWhen: isStepCount(3) });
      let text = "";
      for await (const piece of result.textStream) text += piece;
      assert.equal(text, SUNNY);
    }),
  image: () =>
    each(async (model) => {
      const content = [
        { type: "text", text: QUESTION },
        { type: "image", image: PIXEL, mediaType: "image/png" },
      ];
      const { text } = await generateText({ model: model("image"), maxRetries: 0, messages: [{ role: "user", content }] });
      assert.equal(text, PICTURE);
    }),
  json: () =>
    each(async (model) => {
      const output = Output.object({ schema: jsonSchema(SCHEMA) });
      const result = await generateText({ ...options, model: model("json"), output });
      assert.equal(result.output.city, "Lisbon");
    }),
  async embedding() {
    const { embedding } = await embed({ model: providers.embedding("text-embedding-3-small"), value: "a text" });
    assert.deepEqual(embedding, [1, 2, 3]);
  },
  errors: () =>
    each(async (model, name) => {
      const fails = (failing, statusCode) =>
        assert.rejects(generateText({ ...options, model: failing }), (error) => {
          assert.ok(APICallError.isInstance(error), error);
          assert.equal(error.statusCode, statusCode);
          return true;
        });
      await fails(made(WRONG_KEY)[name]("hello"), 401);
      await fails(model("busy"), 429);
      await fails(model("broken"), 500);
    }),
  async retries() {
    const again = { ...options, maxRetries: 1, model: providers.chat("busy-once") };
    assert.equal((await waitsAsAsked(() => generateText(again))).text, HELLO);
  },
  cut: () =>
    each(async (model) => {
      const errors = [];
      const result = streamText({ ...options, model: model("cut"), onError: ({ error }) => errors.push(error) });
      let text = "";
      await result.consumeStream({ onError: () => {} });
      for await (const part of result.fullStream) {
        if (part.type === "text-delta") text += part.text;
        if (part.type === "error") errors.push(part.error);
      }
      assert.ok(HELLO.startsWith(text) && text !== HELLO, text);
      assert.ok(errors.length, "the stream ended without an error");
    }),
  async own_key() {
    const own = made(OWN_KEY, { "X-Memory-Key": KEY });
    for (const [name] of chats) {
      assert.equal((await generateText({ ...options, model: own[name]("own") })).text, HELLO);
    }
  },
});
