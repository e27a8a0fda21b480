// A page of another origin in a browser: it calls, reads a stream as it comes, and sends and reads
// at once over WebSocket. One of an origin that may not is told nothing.
//
// node browser.mjs HOST:PORT CHROMIUM; the service runs with cors_origins=http://127.0.0.1:PAGE_PORT
import assert from 'node:assert';
import http from 'node:http';
import { chromium } from 'playwright-core';

const [target, executablePath, pagePort] = process.argv.slice(2);
const WITHIN_MS = 30_000;

// Two origins: the service allows the first.
function serve(port) {
  const page = '<!doctype html><meta charset="utf-8"><title>page</title>';
  return new Promise((resolve) => {
    const server = http.createServer((_, response) => {
      response.writeHead(200, { 'content-type': 'text/html' }).end(page);
    });
    server.listen(port, '127.0.0.1', () => resolve(server));
  });
}

// What follows runs in the page.

async function classify(url) {
  const response = await fetch(`${url}/Classify`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Connect-Protocol-Version': '1' },
    body: JSON.stringify({ model: 'sentiment', texts: ['great'] }),
  });
  const { classifications } = await response.json();
  return [response.status, classifications[0].labels[0].label, response.headers.get('trailer-x-request-id')];
}

// The number of reads that brought messages, the text, and the end.
async function generate(url) {
  const message = new TextEncoder().encode(
    JSON.stringify({ model: 'prose', prompt: 'ROMEO:\n', maxTokens: 200, sampling: { seed: '7' } }),
  );
  const body = new Uint8Array(5 + message.length);
  new DataView(body.buffer).setUint32(1, message.length);
  body.set(message, 5);
  const headers = { 'Content-Type': 'application/connect+json' };
  const response = await fetch(`${url}/Generate`, { method: 'POST', headers, body });
  const found = { reads: 0, text: '', end: null };
  let held = new Uint8Array(0);
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) return found;
    found.reads += 1;
    const all = new Uint8Array(held.length + value.length);
    all.set(held);
    all.set(value, held.length);
    held = all;
    while (held.length >= 5) {
      const size = new DataView(held.buffer, held.byteOffset).getUint32(1);
      if (held.length < 5 + size) break;
      const read = JSON.parse(new TextDecoder().decode(held.subarray(5, 5 + size)));
      if (held[0] & 2) found.end = read;
      else found.text += (read.tokens ?? []).map((token) => token.text).join('');
      held = held.subarray(5 + size);
    }
  }
}

function tag(url) {
  const words = ['They', 'can', 'fish'];
  return new Promise((resolve) => {
    const socket = new WebSocket(`${url}/StreamTag`, ['unroll.json']);
    const labels = [];
    const next = () => {
      const word = words.shift();
      socket.send(word ? JSON.stringify({ words: { words: [word] } }) : '');
    };
    socket.onopen = () => {
      socket.send(JSON.stringify({ start: { model: 'pos-online' } }));
      next();
    };
    socket.onmessage = ({ data }) => {
      for (const { text, label } of JSON.parse(data).tokens ?? []) {
        labels.push(`${text}/${label}`);
        next();
      }
    };
    socket.onclose = ({ code, wasClean }) => resolve({ labels, code, wasClean });
  });
}

const [allowed, other] = [await serve(Number(pagePort)), await serve(0)];
const browser = await chromium.launch({
  executablePath,
  args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage'],
  timeout: WITHIN_MS,
});
try {
  const url = `http://${target}/unroll.v1.UnrollService`;
  const sockets = `ws://${target}/unroll.v1.UnrollService`;
  const page = await browser.newPage();
  page.setDefaultTimeout(WITHIN_MS);
  await page.goto(`http://127.0.0.1:${allowed.address().port}/`);

  const [status, label, id] = await page.evaluate(classify, url);
  assert.deepStrictEqual([status, label], [200, 'positive']);
  assert(id, 'headers can be read');

  const { reads, text, end } = await page.evaluate(generate, url);
  assert(reads > 2, `the stream came in ${reads} reads`);
  assert.strictEqual(text.length, 200);
  assert(end && !end.error);

  const tagged = await page.evaluate(tag, sockets);
  const labels = ['They/ppss', 'can/md', 'fish/vb'];
  assert.deepStrictEqual(tagged, { labels, code: 1000, wasClean: true });
  console.log(`a page that may call: ${label}, ${reads} reads of a stream, ${tagged.labels}`);

  await page.goto(`http://127.0.0.1:${other.address().port}/`);
  await assert.rejects(page.evaluate(classify, url), /Failed to fetch/);
  assert.deepStrictEqual(await page.evaluate(tag, sockets), { labels: [], code: 1006, wasClean: false });
  console.log('a page that may not: neither fetch nor WebSocket');
} finally {
  await browser.close();
  allowed.close();
  other.close();
}
