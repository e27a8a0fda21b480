// Node's gRPC client, which reads the .proto files when it starts: no generated code.
//
// node infer.js HOST:PORT
'use strict';

const assert = require('node:assert');
const path = require('node:path');
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');

const PROTO = path.join(__dirname, '..', '..', '..', 'proto');
const FILE = 'unroll/inference/grpc_service.proto';
const SEED = 7;

function connect(target) {
  const options = { includeDirs: [PROTO], defaults: true, keepCase: true, longs: Number };
  const definition = loader.loadSync(FILE, options);
  const { inference } = grpc.loadPackageDefinition(definition);
  return new inference.GRPCInferenceService(target, grpc.credentials.createInsecure());
}

// One request with one answer, as a promise.
function call(client, method, request, options = {}) {
  return new Promise((resolve, reject) => {
    client[method](request, options, (error, answer) => (error ? reject(error) : resolve(answer)));
  });
}

function bytes(name, shape, ...texts) {
  const contents = { bytes_contents: texts.map((text) => Buffer.from(text)) };
  return { name, datatype: 'BYTES', shape, contents };
}

function output(response, name) {
  const found = response.outputs.find((each) => each.name === name);
  assert(found, `no output ${name}`);
  return found.contents;
}

function prose(id, maxTokens) {
  return {
    id,
    model_name: 'prose',
    inputs: [bytes('prompt', [1], 'ROMEO:\n')],
    parameters: {
      max_tokens: { int64_param: maxTokens },
      temperature: { double_param: 0.7 },
      seed: { int64_param: SEED },
    },
  };
}

async function classify(client) {
  const texts = ['The food was not bad, great in fact', 'The food was not great, bad in fact'];
  const request = { id: 'two', model_name: 'sentiment', inputs: [bytes('text', [2, 1], ...texts)] };
  const response = await call(client, 'ModelInfer', request);
  const labels = output(response, 'label').bytes_contents.map(String);
  console.log(`sentiment: ${labels}`);
  assert.strictEqual(response.id, 'two');
  assert.deepStrictEqual(labels, ['positive', 'negative']);
  assert.strictEqual(output(response, 'probabilities').fp32_contents.length, 4);
}

// Two requests on one stream. The client ends its side; the server ends the call when both are
// done.
async function write(client) {
  const stream = client.ModelStreamInfer();
  for (const id of ['a', 'b']) stream.write(prose(id, 30));
  stream.end();
  const texts = { a: '', b: '' };
  const finals = [];
  let responses = 0;
  for await (const { error_message: problem, infer_response: response } of stream) {
    assert.strictEqual(problem, '');
    responses += 1;
    texts[response.id] += output(response, 'text').bytes_contents.join('');
    if (response.parameters.triton_final_response.bool_param) finals.push(response.id);
  }
  console.log(`prose, ${responses} responses: ${JSON.stringify(texts.a)}`);
  assert(responses > 4);
  assert(texts.a.length > 0);
  assert.strictEqual(texts.a, texts.b);
  assert.deepStrictEqual(finals.sort(), ['a', 'b']);
}

async function beRefused(client) {
  const request = { model_name: 'nobody', inputs: [bytes('text', [1, 1], 'a')] };
  await assert.rejects(call(client, 'ModelInfer', request), { code: grpc.status.NOT_FOUND });
}

// A deadline ends the request on both sides; the next one is answered.
async function runOutOfTime(client) {
  const deadline = Date.now() + 100;
  const late = call(client, 'ModelInfer', prose('late', 5000), { deadline });
  await assert.rejects(late, { code: grpc.status.DEADLINE_EXCEEDED });
  const ready = await call(client, 'ServerReady', {});
  assert.strictEqual(ready.ready, true);
}

async function main(target) {
  const client = connect(target);
  try {
    await classify(client);
    await write(client);
    await beRefused(client);
    await runOutOfTime(client);
  } finally {
    client.close();
  }
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exitCode = 1;
});
