// A browser that notes what a page must not do: call elsewhere, break the policy, fail.
import assert from 'node:assert';
import { chromium } from 'playwright-core';

export const [target, executablePath, ...rest] = process.argv.slice(2);
export const origin = `http://${target}`;
export const WIDE = { viewport: { width: 1360, height: 900 } };
export const PHONE = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true };
const WITHIN_MS = 30_000;

/** Runs `check` with a function that opens pages; all that any of them did wrong fails it, but for
 *  what the check provokes. */
export async function inBrowser(check, { mayFail = /$^/, mayCall = /$^/ } = {}) {
  const browser = await chromium.launch({
    executablePath,
    args: [
      '--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage',
      // A microphone of the browser's own, which nobody is asked for.
      '--use-fake-ui-for-media-stream', '--use-fake-device-for-media-stream',
    ],
    timeout: WITHIN_MS,
  });
  const wrong = [];
  const open = async (path, options = WIDE) => {
    const page = await browser.newPage(options);
    page.setDefaultTimeout(WITHIN_MS);
    page.on('pageerror', (error) => wrong.push(`error: ${error.message}`));
    page.on('console', (message) => {
      // A refused call is shown by the page, and told by the browser too.
      const isRefusal = /Failed to load resource: the server responded with a status of (400|401|404|409)/.test(message.text());
      if (message.type() === 'error' && !isRefusal && !mayFail.test(message.text())) wrong.push(`console: ${message.text()}`);
    });
    page.on('request', (request) => {
      if (!request.url().startsWith(`${origin}/`) && !mayCall.test(request.url())) wrong.push(`a request to ${request.url()}`);
    });
    page.on('websocket', (socket) => {
      if (!socket.url().startsWith(`ws://${target}/`)) wrong.push(`a socket to ${socket.url()}`);
    });
    await page.addInitScript(() => {
      globalThis.violations = [];
      addEventListener('securitypolicyviolation', (event) => globalThis.violations.push(`${event.violatedDirective}: ${event.blockedURI}`));
    });
    await page.goto(`${origin}/#/${path}`);
    await page.locator('main h1, main .refusal, main form').first().waitFor();
    return page;
  };
  try {
    await check(open, browser);
    for (const context of browser.contexts()) {
      for (const page of context.pages()) {
        wrong.push(...(await page.evaluate(() => globalThis.violations)));
      }
    }
    assert.deepStrictEqual(wrong, []);
  } finally {
    await browser.close();
  }
}

export const press = (page, name) => page.getByRole('button', { name, exact: true }).first().click();

/** Generate with a seed until the stream has ended; the text that was made. */
export async function generate(page, { seed = '7', tokens } = {}) {
  await page.getByLabel('Seed').fill(seed);
  if (tokens) await page.getByLabel('Tokens at most').fill(String(tokens));
  await press(page, 'Generate');
  await page.locator('.output .status', { hasText: 'Ended:' }).waitFor();
  return made(page);
}

export const made = (page, box = '.output .tokens') => page.locator(box).evaluate((element) => [...element.querySelectorAll('span:not(.before)')].map((span) => span.textContent).join(''));

/** A call as any client makes it. */
export async function call(method, message) {
  const response = await fetch(`${origin}/unroll.v1.UnrollService/${method}`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(message),
  });
  assert.strictEqual(response.status, 200);
  return response.json();
}

/** float16, little-endian. */
export function halves(base64) {
  const bytes = Buffer.from(base64, 'base64');
  return Array.from({ length: bytes.length / 2 }, (_, n) => {
    const bits = bytes.readUInt16LE(2 * n);
    const [sign, exponent, fraction] = [bits >> 15 ? -1 : 1, (bits >> 10) & 31, bits & 1023];
    return exponent ? sign * (1 + fraction / 1024) * 2 ** (exponent - 15) : sign * fraction * 2 ** -24;
  });
}

function envelope(message) {
  const text = Buffer.from(JSON.stringify(message));
  const head = Buffer.alloc(5);
  head.writeUInt32BE(text.length, 1);
  return Buffer.concat([head, text]);
}

/** What a streaming method answers to these messages: its tokens or results, resume points, and what it echoed. */
export async function push(method, messages) {
  const headers = { 'Content-Type': 'application/connect+json' };
  const body = Buffer.concat(messages.map(envelope));
  const response = await fetch(`${origin}/unroll.v1.UnrollService/${method}`, { method: 'POST', headers, body });
  const bytes = new Uint8Array(await response.arrayBuffer());
  const found = { tokens: [], results: [], points: [], echo: [] };
  for (let at = 0; at < bytes.length;) {
    const size = new DataView(bytes.buffer).getUint32(at + 1);
    const read = JSON.parse(new TextDecoder().decode(bytes.subarray(at + 5, at + 5 + size)));
    assert(!read.error, JSON.stringify(read.error));
    found.tokens.push(...(read.tokens ?? []));
    found.results.push(...(read.results ?? []));
    found.points.push(...(read.resumePoints ?? []));
    found.echo.push(...(read.echo ?? []));
    at += 5 + size;
  }
  return found;
}

/** A Generate. */
export const stream = (message) => push('Generate', [message]);

/** That of pairs of a value and its pixel, [red, green, blue, alpha], where the value is higher the pixel
 *  is no colder; between the ends is a difference of so much. */
export function checkWarmth(what, pairs, least) {
  const cells = pairs.map(([value, [red, , blue]]) => [value, red - blue]).sort((a, b) => a[0] - b[0]);
  for (let n = 1; n < cells.length; n += 1) assert(cells[n][1] >= cells[n - 1][1] - 1, `${what}: ${cells[n - 1]}, ${cells[n]}`);
  assert(cells.at(-1)[1] - cells[0][1] > least, `${what}: warm above zero, cold below`);
}

/** The pixels of a canvas, row by row, [red, green, blue, alpha] each. columns: the first so many. */
export const pixelsOf = (canvas, columns) => canvas.evaluate((element, width) => {
  const { data } = element.getContext('2d').getImageData(0, 0, width ?? element.width, element.height);
  return Array.from({ length: data.length / 4 }, (_, n) => [...data.slice(4 * n, 4 * n + 4)]);
}, columns);
