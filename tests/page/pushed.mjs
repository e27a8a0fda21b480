// The state of streams whose parts the page sends, words and frames: the map is what the call
// answers; a state that is kept, a unit that is changed.
//
// node pushed.mjs HOST:PORT CHROMIUM
import assert from 'node:assert';
import { call, checkWarmth, halves, inBrowser, pixelsOf, press, push } from './browser.mjs';

const [TAGGER, STEPPER] = ['pos-online', 'vowels-online'];
const WORDS = 'They can fish in the old river near the bank and see the man'.split(' ');
const PLACE = 5;

async function checkMap(page, tensor, values) {
  const pixels = await pixelsOf(page.locator(`canvas[data-tensor="${tensor}"]`));
  checkWarmth(tensor, values.map((value, unit) => [value, pixels[unit]]), 20);
}

const shadeOf = (value) => {
  const step = Math.round(10 * Math.max(-1, Math.min(1, value)));
  return step < 0 ? `n${-step}` : `u${step}`;
};

const shades = (page) => page.locator('.output .tag').evaluateAll((tags) => tags.map((tag) => tag.className.split(' ')[1]));
const labels = (page, box) => page.locator(`${box} .tag small`).allTextContents();

/** Chooses a unit by the mouse. */
async function choose(page, tensor, unit) {
  const map = page.locator(`canvas[data-tensor="${tensor}"]`);
  const size = await map.evaluate((canvas) => [canvas.width, canvas.height]);
  const box = await map.boundingBox();
  await map.click({ position: { x: ((unit % size[0]) + 0.5) * (box.width / size[0]), y: (Math.floor(unit / size[0]) + 0.5) * (box.height / size[1]) } });
  assert.match(await page.locator('.map', { has: map }).locator('.value').textContent(), new RegExp(`^unit ${unit}: `));
}

async function keep(page, label, name) {
  const keeping = page.locator('.keeping', { hasText: label });
  await keeping.getByLabel('Name to keep it under').fill(name);
  await keeping.getByRole('button', { name: label }).click();
  await keeping.locator('.status', { hasText: `Kept ${name}` }).waitFor();
}

async function forget(page, name) {
  await page.getByLabel('Begin from').selectOption(name);
  await press(page, 'Forget it');
  await page.waitForFunction((gone) => ![...document.querySelectorAll('option')].some((option) => option.value === gone), name);
}

/** Both ways on from a place, the second with a unit held at a value: the labels of each. */
async function bothWays(page, value, hold) {
  await page.locator('.forking input[type=range]').fill(String(value));
  await page.getByLabel(/^Hold it for/).fill(String(hold));
  await press(page, 'Go on both ways');
  await page.locator('.ways .status', { hasText: /all the same|other (labels|answers)/ }).waitFor();
  return [await labels(page, '.ways section:nth-child(1)'), await labels(page, '.ways section:nth-child(2)')];
}

async function tagged(open) {
  const page = await open(TAGGER);
  const area = page.locator('.online textarea');
  await area.pressSequentially(`${WORDS.join(' ')} `);
  await page.locator('.output .tag').nth(WORDS.length - 1).waitFor();
  const start = { model: TAGGER, watch: { tensors: ['hidden_0'] } };
  const words = (from, to) => ({ words: { words: WORDS.slice(from, to) } });
  const { tokens } = await push('StreamTag', [{ start }, words(0)]);
  const states = tokens.map((token) => halves(token.state));
  assert.deepStrictEqual(await labels(page, '.output'), tokens.map((token) => token.label));
  await checkMap(page, 'hidden_0', states.at(-1));

  // A unit colours the words, and a chosen word shows the state after it.
  await choose(page, 'hidden_0', 33);
  assert.deepStrictEqual(await shades(page), states.map((values) => shadeOf(values[33])));
  await page.locator('.output .tag').nth(PLACE).click();
  await checkMap(page, 'hidden_0', states[PLACE]);
  console.log(`${tokens.length} words: the map is what the call answers, and a unit colours them`);

  // The state there is kept, and a line begins from it as this one went on.
  await keep(page, 'Keep this state', 'words');
  await page.getByLabel('Begin from').selectOption('words');
  await area.fill(`${WORDS.slice(PLACE + 1).join(' ')} `);
  await page.waitForFunction((count) => document.querySelectorAll('.output .tag').length === count, WORDS.length - PLACE - 1);
  assert.deepStrictEqual(await labels(page, '.output'), tokens.slice(PLACE + 1).map((token) => token.label));
  assert.match(await page.locator('.online pre').textContent(), /stream_tag\([^]*state="words"/);
  await forget(page, 'words');

  // A unit is held at another value for two words.
  await area.fill(`${WORDS.join(' ')} `);
  await page.waitForFunction((count) => document.querySelectorAll('.output .tag').length === count, WORDS.length);
  await press(page, 'Cells');
  await page.waitForFunction((count) => document.querySelectorAll('.output .tag').length === count, WORDS.length);
  await choose(page, 'cell_0', 7);
  await page.locator('.output .tag').nth(PLACE).click();
  const [plain, changed] = await bothWays(page, 6, 2);
  assert.deepStrictEqual(plain, tokens.slice(PLACE + 1).map((token) => token.label), 'one way is the line as it was');
  const setState = [{ tensor: 'cell_0', units: [7], values: [6] }];
  let point = (await push('StreamTag', [{ start: { model: TAGGER, resumeAtEnd: true } }, words(0, PLACE + 1)])).points.at(-1);
  const expected = [];
  for (const [from, to, changes] of [[1, 2, setState], [2, 3, setState], [3, WORDS.length, []]]) {
    const said = await push('StreamTag', [{ start: { model: TAGGER, resumeToken: point.token, resumeAtEnd: true, setState: changes } }, words(PLACE + from, from === 3 ? to : PLACE + to)]);
    expected.push(...said.tokens.map((token) => token.label));
    point = said.points.at(-1);
  }
  assert.deepStrictEqual(changed, expected);
  assert.match(await page.locator('.ways section:nth-child(2) > .status').textContent(), new RegExp(`changed ${point.changed.slice(0, 12)}`));
  console.log(`a cell held at 6 for two words: ${changed}`);

  // Where nothing follows there are no ways.
  await page.locator('.output .tag').last().click();
  await press(page, 'Go on both ways');
  await page.locator('.fork .refusal', { hasText: 'Nothing follows' }).waitFor();
}

const numbers = (text) => text.split('\n').map((line) => line.split(',').map(Number));
const frameOf = (frame) => ({ frame: { inputs: [{ shape: [1, frame.length], floats: frame }] } });

async function stepped(open) {
  const page = await open(`${STEPPER}/step`);
  const area = page.getByLabel('Frames', { exact: true });
  const rows = numbers(await area.inputValue());
  await press(page, 'Step');
  await page.locator('.status', { hasText: `${rows.length} frames of ${rows.length}.` }).waitFor();
  const watch = { tensors: ['hidden_0'] };
  const { results } = await push('StreamStep', [{ start: { model: STEPPER, typed: true, watch } }, ...rows.map(frameOf)]);
  const answers = results.map(({ outputs }) => outputs[0].floats);
  const { model } = await call('GetModel', { name: STEPPER });
  const best = answers.map((values) => model.labels[values.indexOf(Math.max(...values))]);
  assert.deepStrictEqual(await labels(page, '.output'), best);
  await checkMap(page, 'hidden_0', halves(results.at(-1).state));

  // All that it answers, over time: warmer where a probability is higher.
  const strip = page.locator('canvas[data-output="probabilities"]');
  const pixels = await pixelsOf(strip, rows.length);
  checkWarmth('probabilities', answers.flatMap((values, step) => values.map((value, row) => [value, pixels[row * rows.length + step]])), 50);
  await strip.focus();
  await page.keyboard.press('ArrowRight');
  assert.strictEqual(await page.locator('.strip .value').textContent(), `step 1, 0: ${answers[0][0].toFixed(3)}`);

  await page.locator('.output .tag').nth(2).click();
  await keep(page, 'Keep this state', 'frames');
  await page.getByLabel('Begin from').selectOption('frames');
  await area.fill(rows.slice(3).map((row) => row.join(', ')).join('\n'));
  await press(page, 'Step');
  await page.locator('.status', { hasText: `${rows.length - 3} frames of ${rows.length - 3}.` }).waitFor();
  assert.deepStrictEqual(await labels(page, '.output'), best.slice(3));
  await checkMap(page, 'hidden_0', halves(results.at(-1).state));
  await forget(page, 'frames');
  console.log(`${rows.length} frames: labels, map and strip are what the call answers; the last is ${best.at(-1)}`);
}

await inBrowser(async (open) => {
  await tagged(open);
  await stepped(open);
});
