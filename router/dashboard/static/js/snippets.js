/** Lines to copy: how programs talk to this server. Pure but for the address of the page. */

/** The address that programs use, without a path. */
function serverUrl() {
  return window.location.origin;
}

/** Remember something and find it again, by curl. @param {string} [key] */
export function firstSteps(key = "$MEMORY_KEY") {
  return `curl ${serverUrl()}/v1/memory/ingest \\
  -H "Authorization: Bearer ${key}" \\
  -H "Content-Type: application/json" \\
  -d '{"messages": [{"role": "user", "content": "My dog is called Biscuit."}]}'

curl ${serverUrl()}/v1/memory/search \\
  -H "Authorization: Bearer ${key}" \\
  -H "Content-Type: application/json" \\
  -d '{"query": "What is my dog called?"}'`;
}

/** How to use a key, one entry a tool. @param {string} key @returns {Array<{id: string, label: string, text: string}>} */
export function usesOf(key) {
  const base = `${serverUrl()}/v1`;
  return [
    { id: "curl", label: "curl", text: firstSteps(key) },
    {
      id: "python",
      label: "Python",
      text: `from openai import OpenAI

client = OpenAI(base_url="${base}", api_key="${key}")
reply = client.chat.completions.create(
    model="openai/gpt-5.1",
    messages=[{"role": "user", "content": "What do you know about me?"}],
)
print(reply.choices[0].message.content)`,
    },
    {
      id: "node",
      label: "Node",
      text: `import OpenAI from "openai";

const client = new OpenAI({ baseURL: "${base}", apiKey: "${key}" });
const reply = await client.chat.completions.create({
  model: "openai/gpt-5.1",
  messages: [{ role: "user", content: "What do you know about me?" }],
});
console.log(reply.choices[0].message.content);`,
    },
    { id: "environment", label: "Environment", text: `export MEMORYROUTER_BASE_URL=${serverUrl()}\nexport MEMORYROUTER_API_KEY=${key}` },
  ];
}
