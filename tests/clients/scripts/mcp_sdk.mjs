// The official MCP clients for TypeScript, of both generations, and the Inspector's command line.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { Client as NewClient, StreamableHTTPClientTransport as NewTransport } from "@modelcontextprotocol/client";
import { Client as OldClient } from "@modelcontextprotocol/sdk/client/index.js";
import { StreamableHTTPClientTransport as OldTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { KEY, QUESTION, URL as SERVER, WRONG_KEY, play } from "./scenes.mjs";

const ADDRESS = `${SERVER}/mcp`;
const DOG = "My dog is called Rex.";
const PACKAGES = join(dirname(fileURLToPath(import.meta.url)), "node_modules", "@modelcontextprotocol");
const TOOLS = [
  "search_memories", "date_search_memories", "store_memory", "inspect_memory", "delete_memories",
  "forget_all_memories", "memory_status", "search",
];
const GENERATIONS = {
  old: [OldClient, OldTransport, {}, "2025-11-25"],
  legacy: [NewClient, NewTransport, { versionNegotiation: { mode: "legacy" } }, "2025-11-25"],
  auto: [NewClient, NewTransport, { versionNegotiation: { mode: "auto" } }, "2026-07-28"],
  modern: [NewClient, NewTransport, { versionNegotiation: { mode: { pin: "2026-07-28" } } }, "2026-07-28"],
};

async function withClient(generation, action, key = KEY) {
  const [Client, Transport, options, version] = GENERATIONS[generation];
  const transport = new Transport(new URL(ADDRESS), { requestInit: { headers: { Authorization: `Bearer ${key}` } } });
  const client = new Client({ name: "test", version: "1" }, options);
  await client.connect(transport);
  assert.equal(transport.protocolVersion, version);
  assert.equal(transport.sessionId, undefined);
  try {
    await action(client);
  } finally {
    await client.close();
  }
}

async function inEvery(action) {
  for (const generation of Object.keys(GENERATIONS)) await withClient(generation, action);
}

function run(name, entry, ...args) {
  const done = spawnSync(process.execPath, [join(PACKAGES, name, entry), ...args], { encoding: "utf8" });
  return { status: done.status, output: done.stdout, all: `${done.stdout}${done.stderr}` };
}

function inspect(...args) {
  const done = run(
    "inspector", "clients/launcher/build/index.js", "--cli", ADDRESS, "--transport", "http",
    "--header", `Authorization: Bearer ${KEY}`, ...args,
  );
  assert.equal(done.status, 0, done.all);
  return JSON.parse(done.output);
}

await play({
  tools: () =>
    inEvery(async (client) => {
      const { tools } = await client.listTools();
      assert.deepEqual(tools.map((tool) => tool.name), TOOLS);
      const call = async (name, args) => {
        const result = await client.callTool({ name, arguments: args });
        assert.ok(!result.isError, JSON.stringify(result));
        assert.deepEqual(JSON.parse(result.content[0].text), result.structuredContent);
        return result.structuredContent;
      };
      const { id } = await call("store_memory", { content: "My cat is called Tom.", said_at: "2026-05-03" });
      const day = { start_date: "2026-05-03", end_date: "2026-05-03" };
      assert.equal((await call("search_memories", { query: QUESTION })).memories[0].text, DOG);
      assert.equal((await call("date_search_memories", day)).memories[0].id, id);
      assert.equal((await call("inspect_memory", { memory_id: id })).memory.id, id);
      assert.equal((await call("search", { query: QUESTION })).results[0].text, DOG);
      assert.equal((await call("memory_status", {})).totalMemories, 2);
      assert.deepEqual((await call("delete_memories", { memory_ids: [id] })).deleted, [id]);
    }),
  resources: () =>
    inEvery(async (client) => {
      const { resources } = await client.listResources();
      assert.deepEqual(resources.map((one) => one.uri), ["memory://vault/stats", "memory://vault/recent"]);
      const { contents } = await client.readResource({ uri: "memory://vault/recent" });
      assert.equal(JSON.parse(contents[0].text).memories[0].text, DOG);
    }),
  errors: () =>
    inEvery(async (client) => {
      await assert.rejects(client.readResource({ uri: "memory://vault/none" }), /not found/);
      await assert.rejects(client.callTool({ name: "none", arguments: {} }), (error) => error.code === -32602);
      const refused = await client.callTool({ name: "forget_all_memories", arguments: { confirmation: "yes" } });
      assert.ok(refused.isError);
      assert.match(refused.content[0].text, /DELETE ALL MEMORIES/);
    }),
  async keys() {
    for (const generation of Object.keys(GENERATIONS)) {
      await assert.rejects(withClient(generation, () => {}, WRONG_KEY));
      await withClient(
        generation,
        async (client) => {
          const names = (await client.listTools()).tools.map((tool) => tool.name);
          assert.ok(names.includes("search_memories") && !names.includes("store_memory"));
          assert.ok((await client.callTool({ name: "store_memory", arguments: { content: "x" } })).isError);
        },
        `${KEY}:read`,
      );
    }
  },
  inspector() {
    assert.deepEqual(inspect("--method", "tools/list").tools.map((tool) => tool.name), TOOLS);
    const found = inspect("--method", "tools/call", "--tool-name", "search_memories", "--tool-arg", `query=${QUESTION}`);
    assert.equal(found.structuredContent.memories[0].text, DOG);
    const uris = inspect("--method", "resources/list").resources.map((one) => one.uri);
    assert.ok(uris.includes("memory://vault/stats"));
    assert.ok(inspect("--method", "resources/read", "--uri", uris[0]).contents[0].text.includes("totalMemories"));
  },
  conformance() {
    // The scenarios that do not ask for the suite's own tools, resources and prompts.
    for (const scenario of [
      "server-initialize", "ping", "tools-list", "resources-list", "prompts-list", "dns-rebinding-protection",
    ]) {
      const done = run("conformance", "dist/index.js", "server", "--url", `${ADDRESS}?key=${KEY}`, "--scenario", scenario);
      assert.equal(done.status, 0, done.all);
      assert.match(done.all, /, 0 failed/);
    }
  },
});
