// An independent provider of every format: aimock, with the replies that the clients' scripts expect.
// Prints its address; serves until its standard input is closed.
import { LLMock } from "@copilotkit/aimock";

const HELLO = "Hello there.";
const SUNNY = "It is sunny in Lisbon.";
const PICTURE = "I see a picture.";
const call = { id: "call_1", name: "get_weather", arguments: '{"city": "Lisbon"}' };
const usage = { prompt_tokens: 7, completion_tokens: 3, total_tokens: 10, input_tokens: 7, output_tokens: 3 };
const mock = new LLMock({ port: 0, host: "127.0.0.1", chunkSize: 5 });
for (const maker of ["gpt", "claude", "gemini"]) {
  mock.on({ model: `${maker}-hello` }, { content: HELLO, usage });
  mock.on({ model: `${maker}-image` }, { content: PICTURE, usage });
  mock.on({ model: `${maker}-tools`, hasToolResult: true }, { content: SUNNY, usage });
  mock.on({ model: `${maker}-tools`, hasToolResult: false }, { toolCalls: [call], usage });
}
mock.onEmbedding(/.*/, { embedding: [1, 2, 3] });
await mock.start();
console.log(mock.url);
process.stdin.resume();
process.stdin.on("end", () => process.exit(0));
