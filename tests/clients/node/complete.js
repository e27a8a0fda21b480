// OpenAI's package for Node: completions, events, models, and what it throws where it is refused.
//
// node complete.js HOST:PORT TEXT, which is what Generate makes of REQUEST
// node complete.js HOST:PORT --key KEY, where keys are asked for
'use strict';

const assert = require('node:assert');
const OpenAI = require('openai');

const REQUEST = { model: 'prose', prompt: 'ROMEO:\n', max_tokens: 60, seed: 7, temperature: 0.7 };

function connect(target, apiKey) {
  return new OpenAI({ baseURL: `http://${target}/v1`, apiKey });
}

async function complete(client, expected) {
  const completion = await client.completions.create(REQUEST);
  console.log(completion.choices[0].text, completion.usage);
  assert.strictEqual(completion.choices[0].text, expected);
  assert.strictEqual(completion.choices[0].finish_reason, 'length');
  assert.strictEqual(completion.usage.total_tokens, 67);
  const several = await client.completions.create({ ...REQUEST, n: 3, logprobs: 2, echo: true });
  assert.strictEqual(several.choices[0].text, `ROMEO:\n${expected}`);
  assert.strictEqual(new Set(several.choices.map((choice) => choice.text)).size, 3);
  for (const { text, logprobs } of several.choices) {
    assert.strictEqual(logprobs.tokens.join(''), text);
    assert.strictEqual(logprobs.token_logprobs[0], null);
  }
  const stop = expected.slice(10, 13);
  const stopped = await client.completions.create({ ...REQUEST, stop });
  assert.strictEqual(stopped.choices[0].text, expected.slice(0, expected.indexOf(stop)));
  assert.strictEqual(stopped.choices[0].finish_reason, 'stop');
}

async function stream(client, expected) {
  const options = { stream: true, stream_options: { include_usage: true } };
  let text = '';
  let usage = null;
  let events = 0;
  for await (const event of await client.completions.create({ ...REQUEST, ...options })) {
    events += 1;
    for (const choice of event.choices) text += choice.text;
    usage = event.usage;
  }
  assert.strictEqual(text, expected);
  assert.strictEqual(usage.completion_tokens, 60);
  assert(events > 2);
  // A caller that leaves in the midst of it.
  for await (const event of await client.completions.create({ ...REQUEST, stream: true })) {
    assert.strictEqual(event.object, 'text_completion');
    break;
  }
}

async function listModels(client) {
  const tasks = {};
  for await (const model of client.models.list()) tasks[model.id] = model.task;
  console.log(tasks);
  assert.strictEqual(tasks.prose, 'generate');
  assert.strictEqual((await client.models.retrieve('prose')).id, 'prose');
}

async function beRefused(client) {
  const nobody = client.completions.create({ ...REQUEST, model: 'nobody' });
  await assert.rejects(nobody, OpenAI.NotFoundError);
  const cold = client.completions.create({ ...REQUEST, temperature: -1 });
  await assert.rejects(cold, (error) => {
    assert(error instanceof OpenAI.BadRequestError);
    assert.strictEqual(error.param, 'temperature');
    return true;
  });
  const chat = client.chat.completions.create({ model: 'prose', messages: [] });
  await assert.rejects(chat, /use \/v1\/completions/);
}

async function proveWhoCalls(target, key) {
  const completion = await connect(target, key).completions.create(REQUEST);
  assert(completion.choices[0].text.length > 0);
  const unknown = connect(target, 'nobody').completions.create(REQUEST);
  await assert.rejects(unknown, OpenAI.AuthenticationError);
}

async function main(target, expected, key) {
  if (expected === '--key') {
    await proveWhoCalls(target, key);
    return;
  }
  const client = connect(target, 'any');
  await complete(client, expected);
  await stream(client, expected);
  await listModels(client);
  await beRefused(client);
}

main(...process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
