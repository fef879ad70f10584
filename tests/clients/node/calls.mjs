// The calls of the openai package for Node, each as its users write it. Reads what is to be asked as JSON on standard
// input and prints a JSON line for each call and situation: tests/clients/programs/program.py says in which form.
import { readFileSync } from "node:fs";
import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

const Answer = z.object({ answer: z.string() });
const parameters = { type: "object", properties: { answer: { type: "string" } } };
const functions = [{ type: "function", function: { name: "look_up", parameters } }];
const said = (prompt) => ({ model: "m", messages: [{ role: "user", content: prompt }] });

function message(choice, end) {
  const calls = (choice.message.tool_calls ?? []).map((call) => call.function.arguments).join("");
  return { text: choice.message.content || calls, refusal: choice.message.refusal ?? "", end };
}

async function create(client, prompt) {
  const [choice] = (await client.chat.completions.create(said(prompt))).choices;
  return message(choice, `finish_reason: ${choice.finish_reason}`);
}

async function tools(client, prompt) {
  const [choice] = (await client.chat.completions.create({ ...said(prompt), tools: functions })).choices;
  return message(choice, `finish_reason: ${choice.finish_reason}`);
}

async function parse(client, prompt) {
  const response_format = zodResponseFormat(Answer, "answer");
  const [choice] = (await client.chat.completions.parse({ ...said(prompt), response_format })).choices;
  const { parsed, refusal } = choice.message;
  return { text: parsed?.answer ?? "", refusal: refusal ?? "", end: `parsed: ${parsed ? "Answer" : "null"}` };
}

async function stream(client, prompt) {
  const seen = { text: "", refusal: "", end: "" };
  try {
    for await (const chunk of await client.chat.completions.create({ ...said(prompt), stream: true })) {
      for (const { delta, finish_reason } of chunk.choices) {
        seen.text += delta.content ?? "";
        seen.refusal += delta.refusal ?? "";
        seen.end = finish_reason ? `finish_reason: ${finish_reason}` : seen.end;
      }
    }
  } catch (error) {
    return { ...seen, error: named(error) };
  }
  return seen;
}

async function streamHelper(client, prompt) {
  let text = "";
  const running = client.chat.completions.stream(said(prompt)).on("content", (piece) => (text += piece));
  try {
    const [choice] = (await running.finalChatCompletion()).choices;
    return { ...message(choice, `finish_reason: ${choice.finish_reason}`), text };
  } catch (error) {
    return { text, error: named(error) };
  }
}

function response(found) {
  const pieces = found.output.flatMap((item) => (item.type === "message" ? item.content : []));
  const refusal = pieces.map((piece) => piece.refusal ?? "").join("");
  const reason = found.incomplete_details ? `, reason: ${found.incomplete_details.reason}` : "";
  return { text: found.output_text ?? "", refusal, end: `status: ${found.status}${reason}` };
}

async function responses(client, prompt) {
  return response(await client.responses.create({ model: "m", input: prompt }));
}

async function streamResponses(client, prompt) {
  const seen = { text: "", refusal: "", end: "" };
  try {
    for await (const event of await client.responses.create({ model: "m", input: prompt, stream: true })) {
      if (event.type === "response.output_text.delta") seen.text += event.delta;
      if (event.type === "response.refusal.delta") seen.refusal += event.delta;
      if (["response.completed", "response.incomplete", "response.failed"].includes(event.type)) {
        seen.end = `event: ${event.type}`;
      }
    }
  } catch (error) {
    return { ...seen, error: named(error) };
  }
  return seen;
}

async function streamResponsesHelper(client, prompt) {
  let text = "";
  const running = client.responses.stream({ model: "m", input: prompt });
  running.on("response.output_text.delta", (event) => (text += event.delta));
  try {
    return { ...response(await running.finalResponse()), text };
  } catch (error) {
    return { text, error: named(error) };
  }
}

async function completions(client, prompt) {
  const [choice] = (await client.completions.create({ model: "m", prompt })).choices;
  return { text: choice.text, end: `finish_reason: ${choice.finish_reason}` };
}

async function moderations(client, prompt) {
  const [result] = (await client.moderations.create({ input: prompt })).results;
  return { end: `flagged: ${result.flagged}, illicit: ${result.categories.illicit}` };
}

async function embeddings(client, prompt) {
  const { data } = await client.embeddings.create({ model: "m", input: prompt, encoding_format: "float" });
  return { end: `embedding: ${JSON.stringify(data[0].embedding)}` };
}

function named(error) {
  return [error.constructor.name, error.status, error.code].filter(Boolean).join(" ");
}

const CALLS = {
  "chat.completions.create": create,
  "chat.completions.create, tools": tools,
  "chat.completions.parse": parse,
  "chat.completions.create, stream": stream,
  "chat.completions.stream": streamHelper,
  "completions.create": completions,
  "responses.create": responses,
  "responses.create, stream": streamResponses,
  "responses.stream": streamResponsesHelper,
  "moderations.create": moderations,
  "embeddings.create": embeddings,
};

const { url, asked } = JSON.parse(readFileSync(0, "utf8"));
for (const [call, ask] of Object.entries(CALLS)) {
  for (const { key, prompt, situation, streamed } of asked) {
    if (streamed && !call.includes("stream")) continue;
    const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: key, timeout: 30_000 });
    const seen = await ask(client, prompt).catch((error) => ({ error: named(error) }));
    console.log(JSON.stringify({ call, situation, ...seen }));
  }
}
