// The OpenAI SDK for Node: what its users do and expect.
import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";
import {
  collect, HELLO, KEY, OWN_KEY, PICTURE, PIXEL, play, QUESTION, SCHEMA, SUNNY, URL, waitsAsAsked, WRONG_KEY,
} from "./scenes.mjs";

const client = (options = {}) => new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY, maxRetries: 0, ...options });
const ask = [{ role: "user", content: QUESTION }];
const tools = [{ type: "function", function: { name: "get_weather", parameters: SCHEMA } }];
const flatTools = [{ type: "function", name: "get_weather", parameters: SCHEMA, strict: false }];
const models = (scene) => [`gpt-${scene}`, `anthropic/claude-${scene}`, `google/gemini-${scene}`];

await play({
  async chat() {
    for (const model of models("hello")) {
      const reply = await client().chat.completions.create({ model, messages: ask });
      assert.equal(reply.choices[0].message.content, HELLO);
      assert.ok(reply._request_id);
    }
  },
  async chat_stream() {
    for (const model of models("hello")) {
      const chunks = await collect(
        await client().chat.completions.create({
          model, messages: ask, stream: true, stream_options: { include_usage: true },
        }),
      );
      assert.equal(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), HELLO);
      assert.ok(chunks.at(-1).usage.total_tokens > 0);
    }
  },
  async tools() {
    for (const model of models("tools")) {
      const first = await client().chat.completions.create({ model, messages: ask, tools });
      const message = first.choices[0].message;
      assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { city: "Lisbon" });
      const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "sunny" };
      const second = await client().chat.completions.create({ model, messages: [...ask, message, result], tools });
      assert.equal(second.choices[0].message.content, SUNNY);
    }
  },
  async tools_runner() {
    for (const model of models("tools")) {
      const runner = client().chat.completions.runTools({
        model,
        messages: ask,
        stream: true,
        tools: [
          {
            type: "function",
            function: { name: "get_weather", parameters: SCHEMA, parse: JSON.parse, function: ({ city }) => city },
          },
        ],
      });
      assert.equal(await runner.finalContent(), SUNNY);
    }
  },
  async image() {
    const content = [
      { type: "text", text: QUESTION },
      { type: "image_url", image_url: { url: `data:image/png;base64,${PIXEL}` } },
    ];
    for (const model of models("image")) {
      const reply = await client().chat.completions.create({ model, messages: [{ role: "user", content }] });
      assert.equal(reply.choices[0].message.content, PICTURE);
    }
  },
  async responses() {
    assert.equal((await client().responses.create({ model: "gpt-hello", input: QUESTION })).output_text, HELLO);
    const stream = client().responses.stream({ model: "gpt-hello", input: ask });
    assert.equal((await stream.finalResponse()).output_text, HELLO);
  },
  async responses_tools() {
    const first = await client().responses.create({ model: "gpt-tools", input: ask, tools: flatTools });
    const [call] = first.output;
    const result = { type: "function_call_output", call_id: call.call_id, output: "sunny" };
    const second = await client().responses.create({ model: "gpt-tools", input: [...ask, call, result] });
    assert.equal(second.output_text, SUNNY);
  },
  async others() {
    const embedded = await client().embeddings.create({ model: "text-embedding-3-small", input: "a text" });
    assert.deepEqual([...embedded.data[0].embedding], [1, 2, 3]);
    const names = (await collect(await client().models.list())).map((model) => model.id);
    assert.ok(names.includes("openai/gpt-hello"));
    assert.equal((await client().models.retrieve("openai/gpt-hello")).id, "openai/gpt-hello");
    const file = await toFile(Buffer.alloc(1_000_000, 7), "sound.wav");
    assert.equal((await client().audio.transcriptions.create({ model: "whisper-1", file })).text, HELLO);
    const speech = await client().audio.speech.create({ model: "tts-1", voice: "alloy", input: "Hello." });
    assert.equal((await speech.arrayBuffer()).byteLength, 3 + 256 * 40);
  },
  async errors() {
    const call = (options, model) => client(options).chat.completions.create({ model, messages: ask });
    await assert.rejects(call({ apiKey: WRONG_KEY }, "gpt-hello"), (error) => {
      assert.ok(error instanceof OpenAI.AuthenticationError);
      assert.equal(error.code, "invalid_api_key");
      return true;
    });
    await assert.rejects(call({}, "nobody/m"), (error) => {
      assert.ok(error instanceof OpenAI.NotFoundError);
      assert.equal(error.code, "model_not_found");
      return true;
    });
    for (const model of models("busy")) {
      await assert.rejects(call({}, model), (error) => {
        assert.ok(error instanceof OpenAI.RateLimitError);
        assert.equal(error.headers.get("retry-after"), "1");
        return true;
      });
    }
  },
  async retries() {
    const sdk = client({ maxRetries: 2 });
    const reply = await waitsAsAsked(() => sdk.chat.completions.create({ model: "gpt-busy-once", messages: ask }));
    assert.equal(reply.choices[0].message.content, HELLO);
  },
  async cut() {
    for (const model of models("cut")) {
      let text = "";
      await assert.rejects(async () => {
        for await (const chunk of await client().chat.completions.create({ model, messages: ask, stream: true })) {
          text += chunk.choices[0]?.delta.content ?? "";
        }
      }, OpenAI.APIError);
      assert.ok(text && HELLO.startsWith(text));
    }
  },
  async left() {
    const stream = await client().chat.completions.create({ model: "gpt-hello", messages: ask, stream: true });
    for await (const chunk of stream) if (chunk.choices[0].delta.content) break;
  },
  async own_key() {
    const sdk = client({ apiKey: OWN_KEY, defaultHeaders: { "X-Memory-Key": KEY } });
    for (const model of models("own")) await sdk.chat.completions.create({ model, messages: ask });
  },
});
