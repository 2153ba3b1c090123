// Plays the scenes of a client's script and says which of them failed; the twin of scenes.py for Node.
import assert from "node:assert/strict";

export const URL = process.env.MEMORYROUTER_BASE_URL;
export const KEY = process.env.MEMORYROUTER_API_KEY;
export const OWN_KEY = process.env.TEST_OWN_KEY;
export const WRONG_KEY = `mk_${"x".repeat(40)}`;

export const QUESTION = "What is my dog called?";
export const HELLO = "Hello there.";
export const SUNNY = "It is sunny in Lisbon.";
export const PICTURE = "I see a picture.";
export const RETRY_AFTER_MS = 1000;
export const PIXEL =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII=";
export const SCHEMA = { type: "object", properties: { city: { type: "string" } }, required: ["city"] };

export async function collect(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}

export async function waitsAsAsked(action) {
  const began = performance.now();
  const result = await action();
  assert.ok(performance.now() - began >= RETRY_AFTER_MS, "retry-after was not honoured");
  return result;
}

export async function play(scenes) {
  const wanted = process.argv.slice(2);
  for (const name of wanted) assert.ok(name in scenes, `no scene ${name}`);
  let failed = 0;
  for (const [name, scene] of Object.entries(scenes)) {
    if (wanted.length && !wanted.includes(name)) continue;
    try {
      await scene();
      console.log(`ok ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${name}\n`, error);
    }
  }
  process.exit(failed ? 1 : 0);
}
