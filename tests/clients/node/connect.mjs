// Connect for Node: one client over Connect, gRPC-Web and gRPC, from descriptors alone.
//
// node connect.mjs HOST:PORT DESCRIPTORS
import assert from 'node:assert';
import fs from 'node:fs';
import { createFileRegistry, fromBinary } from '@bufbuild/protobuf';
import { FileDescriptorSetSchema } from '@bufbuild/protobuf/wkt';
import { Code, ConnectError, createClient } from '@connectrpc/connect';
import {
  createConnectTransport,
  createGrpcTransport,
  createGrpcWebTransport,
} from '@connectrpc/connect-node';

const SEED = 7n;
const [target, descriptors] = process.argv.slice(2);
const set = fromBinary(FileDescriptorSetSchema, fs.readFileSync(descriptors));
const service = createFileRegistry(set).getService('unroll.v1.UnrollService');
const baseUrl = `http://${target}`;

const TRANSPORTS = {
  'Connect, HTTP/1.1': () => createConnectTransport({ baseUrl, httpVersion: '1.1' }),
  'Connect, HTTP/1.1, GET': () =>
    createConnectTransport({ baseUrl, httpVersion: '1.1', useHttpGet: true }),
  'Connect, HTTP/2, protobuf': () =>
    createConnectTransport({ baseUrl, httpVersion: '2', useBinaryFormat: true }),
  'Connect, HTTP/2, JSON': () =>
    createConnectTransport({ baseUrl, httpVersion: '2', useBinaryFormat: false }),
  'gRPC-Web, HTTP/1.1': () => createGrpcWebTransport({ baseUrl, httpVersion: '1.1' }),
  'gRPC-Web, HTTP/2': () => createGrpcWebTransport({ baseUrl, httpVersion: '2' }),
  gRPC: () => createGrpcTransport({ baseUrl }),
};

async function classify(client) {
  const texts = ['The food was not bad, great in fact', 'The food was not great, bad in fact'];
  const { classifications } = await client.classify({ model: 'sentiment', texts });
  const labels = classifications.map(({ labels: [best] }) => best.label);
  assert.deepStrictEqual(labels, ['positive', 'negative']);
}

async function list(client) {
  // Long enough to come compressed.
  const { models } = await client.listModels({});
  assert(models.some(({ name }) => name === 'prose'));
}

// The whole text of a stream, which is the same over every transport.
async function generate(client) {
  const request = {
    model: 'prose',
    input: { case: 'prompt', value: 'ROMEO:\n' },
    maxTokens: 30,
    sampling: { temperature: 0.7, seed: SEED },
  };
  let text = '';
  let responses = 0;
  for await (const { tokens } of client.generate(request)) {
    responses += 1;
    text += tokens.map((token) => token.text).join('');
  }
  assert(responses > 1);
  assert(text.length > 0);
  return text;
}

// Each word is sent once the label of the one before has come; over HTTP/1.1 all of them are sent
// first.
async function tag(client, isBoth) {
  const words = ['They', 'can', 'fish'];
  let answered = () => {};
  async function* parts() {
    yield { part: { case: 'start', value: { model: 'pos-online' } } };
    for (const word of words) {
      const label = new Promise((resolve) => (answered = resolve));
      yield { part: { case: 'words', value: { words: [word] } } };
      if (isBoth) await label;
    }
  }
  const found = [];
  for await (const { tokens } of client.streamTag(parts())) {
    for (const { text, label } of tokens) {
      found.push(`${text}/${label}`);
      answered();
    }
  }
  assert.deepStrictEqual(found, ['They/ppss', 'can/md', 'fish/vb']);
}

async function rejected(call, code) {
  await assert.rejects(call, (error) => {
    assert(error instanceof ConnectError, String(error));
    assert.strictEqual(Code[error.code], Code[code], error.message);
    return true;
  });
}

async function beRefused(client) {
  await rejected(client.classify({ model: 'nobody', texts: ['a'] }), Code.NotFound);
  const stream = async () => {
    for await (const each of client.generate({ model: 'nobody' })) assert.fail(String(each));
  };
  await rejected(stream(), Code.NotFound);
}

// A deadline ends the request on both sides; the next one is answered.
async function runOutOfTime(client) {
  const request = { model: 'prose', input: { case: 'prompt', value: 'a' }, maxTokens: 5000 };
  const late = async () => {
    for await (const each of client.generate(request, { timeoutMs: 100 })) assert(each);
  };
  await rejected(late(), Code.DeadlineExceeded);
  await classify(client);
}

const texts = new Set();
for (const [name, make] of Object.entries(TRANSPORTS)) {
  const client = createClient(service, make());
  await classify(client);
  await list(client);
  texts.add(await generate(client));
  if (!name.includes('HTTP/1.1')) await tag(client, true);
  await beRefused(client);
  await runOutOfTime(client);
  console.log(`${name}: every call was answered`);
}
assert.strictEqual(texts.size, 1);
// Connections of HTTP/2 stay open.
process.exit(0);
