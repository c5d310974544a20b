// The openai package for Node.js: asks for one feature, told on standard input, and prints what it heard as one JSON object.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const OpenAI = createRequire(import.meta.url)("openai").default;
const told = JSON.parse(readFileSync(0, "utf-8"));
const MODEL = "deepseek-chat";
const SUM = "What is 20 + 22?", COUNT = "Count from 7 to 68.", WEATHER = "What is the weather in Rome?";
const user = (content) => [{ role: "user", content }];
const made = (address, maxRetries) =>
  new OpenAI({ baseURL: `${address}/v1`, apiKey: told.key, maxRetries, timeout: 120_000 });
const client = made(told.site, 0);

const heard = (choice) => ({
  content: choice.message.content ?? "",
  reasoning: choice.message.reasoning_content ?? "",
  calls: (choice.message.tool_calls ?? []).map((one) => [one.function.name, one.function.arguments]),
  finish: choice.finish_reason,
});

async function chat(messages, more = {}) {
  const answer = await client.chat.completions.create({ model: MODEL, messages, temperature: 0, max_tokens: 900, ...more });
  const [choice] = answer.choices;
  return { message: choice.message, logprobs: choice.logprobs, ...heard(choice) };
}

const features = {
  chat: () => chat(user(SUM)),
  reasoning: () => chat(user(SUM), { model: "deepseek-reasoner" }),
  "forced tool": () => chat(user(COUNT), { tools: [told.note], tool_choice: "required" }),
  prefix: () => chat([...user(COUNT), { role: "assistant", content: "7, 8, ", prefix: true }]),
  "JSON schema": () =>
    chat(user(COUNT), {
      response_format: { type: "json_schema", json_schema: { name: "numbers", strict: true, schema: told.schema } },
    }),
  async stream() {
    let content = "", finish = "";
    const asked = { model: MODEL, messages: user(COUNT), temperature: 0, stream: true };
    for await (const chunk of await client.chat.completions.create(asked)) {
      for (const choice of chunk.choices) {
        content += choice.delta.content ?? "";
        finish = choice.finish_reason ?? finish;
      }
    }
    return { content, finish };
  },
  async tools() {
    const first = await chat(user(WEATHER), { tools: [told.weather] });
    const results = (first.message.tool_calls ?? []).map((one) => ({ role: "tool", tool_call_id: one.id, content: "sunny" }));
    const second = await chat([...user(WEATHER), first.message, ...results], { tools: [told.weather] });
    return { content: second.content, calls: first.calls, finish: `${first.finish}, ${second.finish}` };
  },
  async n() {
    const asked = { model: MODEL, messages: user("Say a word."), n: 3, seed: 5, temperature: 1, max_tokens: 200, ignore_eos: true };
    const answer = await client.chat.completions.create(asked);
    const said = answer.choices.sort((one, other) => one.index - other.index);
    return { content: JSON.stringify(said.map((one) => one.message.content)), finish: said[0].finish_reason };
  },
  async logprobs() {
    const answer = await chat(user(SUM), { logprobs: true, top_logprobs: 2 });
    const rows = answer.logprobs.content;
    const same = rows.map((row) => row.token).join("") === answer.content && rows.every((row) => row.top_logprobs.length === 2);
    return { content: `${same ? "True" : "False"}: ${answer.content}`, finish: answer.finish };
  },
  async completions() {
    const asked = { model: MODEL, prompt: ["one two", "three"], temperature: 0, max_tokens: 200, ignore_eos: true };
    const answer = await client.completions.create(asked);
    const said = answer.choices.sort((one, other) => one.index - other.index);
    return { content: JSON.stringify(said.map((one) => one.text)), finish: said[0].finish_reason };
  },
  async FIM() {
    const beta = new OpenAI({ baseURL: `${told.site}/beta`, apiKey: told.key, maxRetries: 0, timeout: 120_000 });
    const asked = { model: MODEL, prompt: "one two", suffix: "five six", temperature: 0, max_tokens: 200, ignore_eos: true };
    const [choice] = (await beta.completions.create(asked)).choices;
    return { content: choice.text, finish: choice.finish_reason };
  },
  async responses() {
    const tool = { type: "function", strict: false, ...told.weather.function };
    const answer = await client.responses.create({ model: MODEL, input: WEATHER, tools: [tool], temperature: 0, store: false });
    const calls = answer.output.filter((one) => one.type === "function_call").map((one) => [one.name, one.arguments]);
    return { content: answer.output_text, calls, finish: answer.status };
  },
  async errors() {
    const said = [];
    for (const more of [{ model: "gpt-9" }, { temperature: 7 }, { messages: [] }]) {
      try {
        await client.chat.completions.create({ model: MODEL, messages: user(SUM), ...more });
      } catch (wrong) {
        said.push(`${wrong.status} ${wrong.param}`);
      }
    }
    return { content: said.join("; ") };
  },
  async retries() {
    const poor = made(told.poor, 8), said = [];
    for (let i = 0; i < 3; i++) {
      const answer = await poor.chat.completions.create({ model: MODEL, messages: user(SUM), temperature: 0 });
      said.push(answer.choices[0].message.content);
    }
    return { content: said.join("; ") };
  },
};

const { message, logprobs, ...said } = await features[told.feature]();
console.log(JSON.stringify(said));
