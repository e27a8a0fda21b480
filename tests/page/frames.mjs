// How fast the page draws: a stream of 500 tokens a second with 1,024 watched units, which the page
// reads as it reads a server's, while a unit colours the text.
//
// node frames.mjs HOST:PORT CHROMIUM; the last line is JSON
import assert from 'node:assert';
import { inBrowser, press } from './browser.mjs';

const [RATE, SECONDS] = [500, 6];

// In the page: Generate answers by itself, a token every 2 ms.
function answerAlone([rate, seconds]) {
  const states = Array.from({ length: 64 }, () => {
    const bytes = new Uint8Array(2048);
    for (let unit = 0; unit < 1024; unit += 1) {
      bytes[2 * unit] = Math.random() * 256;
      bytes[2 * unit + 1] = (Math.random() < 0.5 ? 0 : 128) + 48 + Math.floor(Math.random() * 12);
    }
    return btoa(String.fromCharCode(...bytes));
  });
  const own = globalThis.fetch;
  globalThis.fetch = (url, options) => {
    if (!String(url).endsWith('/Generate')) return own(url, options);
    const began = performance.now();
    let made = 0;
    const envelope = (flags, message) => {
      const text = new TextEncoder().encode(JSON.stringify(message));
      const data = new Uint8Array(5 + text.length);
      data[0] = flags;
      new DataView(data.buffer).setUint32(1, text.length);
      data.set(text, 5);
      return data;
    };
    const words = 'To be, or not to be, that is the question:\nWhether tis nobler ';
    const body = new ReadableStream({
      start(controller) {
        const timer = setInterval(() => {
          const due = Math.min(rate * seconds, Math.floor(((performance.now() - began) * rate) / 1000));
          for (; made < due; made += 1) {
            controller.enqueue(envelope(0, {
              ...(made ? {} : { seed: '1' }),
              tokens: [{ id: 1, text: words[made % words.length], position: made, logProbability: -Math.random() * 3, state: states[made % 64] }],
            }));
          }
          if (made < rate * seconds) return;
          clearInterval(timer);
          controller.enqueue(envelope(0, { finishReason: 'FINISH_REASON_LENGTH' }));
          controller.enqueue(envelope(2, {}));
          controller.close();
        }, 2);
      },
    });
    return Promise.resolve(new Response(body, { status: 200 }));
  };
}

// In the page: how far apart frames began, and how long after its beginning each was laid out and
// painted, of this thread: a message that is sent before that comes after it.
async function watchFrames() {
  const [apart, work] = [[], []];
  const { port1, port2 } = new MessageChannel();
  let last = 0;
  while (!document.querySelector('.output .status').textContent.includes('Ended:')) {
    const began = await new Promise(requestAnimationFrame);
    const painted = new Promise((resolve) => { port1.onmessage = resolve; });
    port2.postMessage(null);
    await painted;
    if (last) {
      apart.push(began - last);
      work.push(performance.now() - began);
    }
    last = began;
  }
  return { apart, work };
}

await inBrowser(async (open) => {
  const page = await open('prose');
  await page.evaluate(answerAlone, [RATE, SECONDS]);
  await page.locator('canvas').first().click();
  // Processor time of the page's main thread: what other programs of the machine do is not in it.
  const session = await page.context().newCDPSession(page);
  await session.send('Performance.enable', { timeDomain: 'threadTicks' });
  const busy = async () => {
    const { metrics } = await session.send('Performance.getMetrics');
    return Object.fromEntries(metrics.map(({ name, value }) => [name, value]));
  };
  const before = await busy();
  const watched = page.evaluate(watchFrames);
  await press(page, 'Generate');
  const { apart, work } = await watched;
  const after = await busy();
  const of = (share, values) => Number(values.toSorted((a, b) => a - b)[Math.floor(share * (values.length - 1))].toFixed(1));
  const each = (name) => Number(((1000 * (after[name] - before[name])) / apart.length).toFixed(2));
  const found = {
    tokens: await page.locator('.output .tokens span:not(.before)').count(),
    frames: apart.length,
    frames_apart_ms: { median: of(0.5, apart), p95: of(0.95, apart), most: of(1, apart) },
    frame_ms: { median: of(0.5, work), p95: of(0.95, work), most: of(1, work) },
    processor_ms_a_frame: { all: each('TaskDuration'), script: each('ScriptDuration'), layout: each('LayoutDuration'), style: each('RecalcStyleDuration') },
  };
  assert(found.tokens >= RATE * SECONDS, `${found.tokens} tokens were shown`);
  assert(found.processor_ms_a_frame.all < 16, `a frame takes ${found.processor_ms_a_frame.all} ms of processor time`);
  console.log(JSON.stringify(found));
});
