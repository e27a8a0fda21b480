// The state: the map is what the call answers; freeze, step, go on; a changed unit.
import assert from 'node:assert';
import { checkWarmth, generate, halves, inBrowser, made, pixelsOf, press, stream } from './browser.mjs';

// Of the second layer, the one that counts the place in the line.
const UNIT = 77;
const AT = { x: ((UNIT % 32) + 0.5) / 32, y: (Math.floor(UNIT / 32) + 0.5) / 16 };

const ASKED = { model: 'prose', prompt: 'ROMEO:\n', sampling: { seed: '7' } };

await inBrowser(async (open) => {
  const page = await open('prose');
  await page.getByLabel('Seed').fill('7');
  await page.getByLabel('Tokens at most').fill('300');
  const seen = page.evaluate(async () => {
    const canvas = document.querySelector('canvas[data-tensor="hidden_0"]');
    const pictures = new Set();
    while (!document.querySelector('.output .status').textContent.includes('Ended:')) {
      await new Promise(requestAnimationFrame);
      pictures.add(String(canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data));
    }
    return pictures.size;
  });
  await press(page, 'Generate');
  const pictures = await seen;
  assert(pictures > 5, `the map changed ${pictures} times while text came`);
  const text = await made(page);

  // Its pixels are the numbers of the call: where the same value is, the same colour is, in order.
  const { tokens } = await stream({ ...ASKED, maxTokens: 300, watch: { tensors: ['hidden_0', 'hidden_1'] } });
  assert.strictEqual(text, tokens.map((token) => token.text).join(''));
  const values = halves(tokens.at(-1).state);
  for (const [n, tensor] of ['hidden_0', 'hidden_1'].entries()) {
    const pixels = await pixelsOf(page.locator(`canvas[data-tensor="${tensor}"]`));
    checkWarmth(tensor, values.slice(512 * n, 512 * (n + 1)).map((value, unit) => [value, pixels[unit]]), 200);
  }
  console.log(`the map changed ${pictures} times, and is what the call answers`);

  // A click says the unit and its value, and the text takes its colour.
  const map = page.locator('canvas[data-tensor="hidden_1"]');
  const box = await map.boundingBox();
  await map.click({ position: { x: AT.x * box.width, y: AT.y * box.height } });
  const caption = await page.locator('.map', { has: map }).locator('.value').textContent();
  assert(caption.startsWith(`unit ${UNIT}: `), caption);
  assert(Math.abs(Number(caption.split(': ')[1]) - values[512 + UNIT]) < 1e-3, caption);
  const shades = await page.locator('.output .tokens span:not(.before)').evaluateAll((spans) => spans.map((span) => span.className.split(' ')[0]));
  const states = tokens.map((token) => halves(token.state)[512 + UNIT]);
  states.slice(1).forEach((value, n) => {
    const step = Math.round(10 * value);
    assert.strictEqual(shades[n], step < 0 ? `n${-step}` : `u${step}`, `token ${n}`);
  });
  await map.focus();
  await page.keyboard.press('ArrowRight');
  assert((await page.locator('.unit').textContent()).includes(`unit ${UNIT + 1}`));
  console.log('a unit colours the text as the call says');

  // Units by what they follow; the line counter is the best of its kind.
  const line = page.locator('.following li', { hasText: 'place in the line' });
  await line.locator('button').click();
  assert.match(await line.textContent(), /layer \d, unit \d+r −?0\.[3-9]/);

  // Frozen, a token at a time, and on: the same text as in one go.
  const whole = (await stream({ ...ASKED, maxTokens: 400 })).tokens.map((token) => token.text).join('');
  await press(page, 'Step one token');
  await page.waitForFunction((count) => document.querySelectorAll('.output .tokens span:not(.before)').length === count, 301);
  await page.getByRole('button', { name: 'Step one token' }).and(page.locator(':enabled')).waitFor();
  assert.strictEqual(await made(page), whole.slice(0, 301));
  await page.getByLabel('Tokens at most').fill('400');
  // Pressed in the page, which is nearer than this program.
  const pressed = page.evaluate(async () => {
    const count = () => document.querySelectorAll('.output .tokens span:not(.before)').length;
    while (count() < 40 || count() > 250) await new Promise(requestAnimationFrame);
    [...document.querySelectorAll('button')].find((button) => button.textContent === 'Freeze').click();
  });
  await press(page, 'Generate');
  await pressed;
  await page.getByRole('button', { name: 'Go on', exact: true }).and(page.locator(':enabled')).waitFor();
  const frozen = await made(page);
  assert(frozen.length < 400, 'it was frozen on the way');
  await page.getByRole('button', { name: 'Go on', exact: true }).click();
  await page.locator('.output .status', { hasText: '400 tokens' }).and(page.locator(':text("Ended:")')).waitFor();
  assert.strictEqual(await made(page), whole);
  console.log(`frozen after ${frozen.length} tokens, and gone on from as if it had not been`);

  // A unit of the line counter is held at another value: another text, and the same one twice.
  await press(page, 'Cells');
  await generate(page, { tokens: 300 });
  const cell = page.locator('canvas[data-tensor="cell_1"]');
  const at = await cell.boundingBox();
  await cell.click({ position: { x: AT.x * at.width, y: AT.y * at.height } });
  await page.locator('.output .tokens span:not(.before)').nth(200).click();
  await page.getByLabel('Tokens each way').fill('80');
  const fork = async (value) => {
    await page.locator('.forking input[type=range]').fill(String(value));
    await press(page, 'Go on both ways');
    await page.locator('.ways .status', { hasText: /all the same|another text/ }).waitFor();
    return {
      plain: await made(page, '.ways section:nth-child(1) .tokens'),
      changed: await made(page, '.ways section:nth-child(2) .tokens'),
      said: await page.locator('.ways section:nth-child(2) > .status').textContent(),
    };
  };
  const once = await fork(-6);
  assert.strictEqual(once.plain, text.slice(201, 281), 'one way is the stream as it was');
  assert.notStrictEqual(once.changed, once.plain);
  assert.match(once.said, /another text from token \d+ on; changed [0-9a-f]{12}/);
  assert.deepStrictEqual(await fork(-6), once, 'the same change gives the same text');
  const other = await fork(6);
  assert.notStrictEqual(other.changed, once.changed);
  const longest = (one) => Math.max(...one.split('\n').map((words) => words.length));
  console.log(`line counter low: ${JSON.stringify(once.changed)} (longest ${longest(once.changed)}); high: ${JSON.stringify(other.changed)} (longest ${longest(other.changed)})`);
  assert(longest(once.changed) > longest(other.changed), 'held low a line goes on, held high it ends');
});
