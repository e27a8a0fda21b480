// Where a model looks while it writes: the map is what the call answers, and grows token by token.
//
// node attention.mjs HOST:PORT CHROMIUM MODEL MODEL-WITHOUT
import assert from 'node:assert';
import { generate, halves, inBrowser, press, rest, stream } from './browser.mjs';

const [model, without] = rest;
const SOURCE = 'ABCAB';
const SHADES = 255;
const MAP = 'canvas[data-tensor="attention"]';

const rows = (page) => page.locator('.attention .writes span').count();

/** The pixels of the map, a row of [red, green, blue, alpha] for each token. */
const picture = (page) => page.locator(MAP).evaluate((canvas) => {
  const shown = document.querySelectorAll('.attention .writes span').length;
  const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, shown);
  return Array.from({ length: shown }, (_, row) => Array.from({ length: canvas.width }, (__, column) => [...data.slice(4 * (row * canvas.width + column), 4 * (row * canvas.width + column) + 4)]));
});

/** That each pixel lies between the colours of 0 % and 100 % as its weight does. */
function checkPicture(found, weights, [none, all]) {
  assert.deepStrictEqual(found.length, weights.length);
  found.forEach((row, n) => row.forEach((pixel, place) => {
    const share = Math.round(SHADES * weights[n][place]) / SHADES;
    for (let channel = 0; channel < 3; channel += 1) {
      const expected = none[channel] + (all[channel] - none[channel]) * share;
      assert(Math.abs(pixel[channel] - expected) <= 1, `token ${n}, place ${place}: ${pixel} for ${weights[n][place]}`);
    }
  }));
}

const ends = (page) => page.evaluate(() => ['--blank', '--accent'].map((name) => {
  const probe = document.body.appendChild(document.createElement('span'));
  probe.style.setProperty('color', `var(${name})`);
  const said = getComputedStyle(probe).color.match(/[\d.]+/g).map(Number);
  probe.remove();
  return said;
}));

await inBrowser(async (open) => {
  const page = await open(`${model}/generate`);
  await page.getByLabel('Source').fill(SOURCE);
  await page.getByLabel('Temperature').fill('1');
  await page.evaluate(() => {
    globalThis.shift = 0;
    new PerformanceObserver((list) => { for (const entry of list.getEntries()) globalThis.shift += entry.value; }).observe({ type: 'layout-shift', buffered: false });
  });
  await generate(page, { seed: '3', tokens: 40 });
  const { tokens, echo } = await stream({
    model, source: SOURCE, maxTokens: 40, echo: true, sampling: { temperature: 1, seed: '3' }, watch: { tensors: ['attention'] },
  });
  const weights = tokens.map((token) => halves(token.state));
  assert.deepStrictEqual(await page.locator('.attention .reads span').allTextContents(), echo.map((token) => token.text));
  assert.deepStrictEqual(echo.map((token) => token.text).join(''), SOURCE.toLowerCase());
  assert.deepStrictEqual(await page.locator('.attention .writes span').allTextContents(), tokens.map((token) => token.text.trim()));
  checkPicture(await picture(page), weights, await ends(page));
  const shift = await page.evaluate(() => globalThis.shift);
  assert(shift < 0.01, `what is shown moved by ${shift} while text came`);
  console.log(`${tokens.length} tokens over ${echo.length}: the map is what the call answers; layout shift ${shift}`);

  // The weight under the mouse, and of a cell that the arrow keys choose.
  const caption = page.locator('.attention .status');
  const says = (row, place) => `“${tokens[row].text.trim()}” looks at “${echo[place].text}”: `;
  const percents = async () => Number((await caption.textContent()).split(': ')[1].replace(' %', ''));
  const near = async (row, place) => assert(Math.abs(await percents() - 100 * weights[row][place]) <= 0.51, await caption.textContent());
  await page.locator(MAP).hover({ position: { x: 36, y: 36 } });
  assert((await caption.textContent()).startsWith(says(1, 1)), await caption.textContent());
  await near(1, 1);
  await page.mouse.move(0, 0);
  assert.match(await caption.textContent(), /^A row for each token/);
  await page.locator(MAP).focus();
  for (const key of ['ArrowDown', 'ArrowDown', 'ArrowRight', 'ArrowRight', 'ArrowUp', 'ArrowLeft']) await page.keyboard.press(key);
  assert((await caption.textContent()).startsWith(says(0, 1)), await caption.textContent());
  await near(0, 1);
  assert.strictEqual(await page.locator('.reads .at').textContent(), echo[1].text);
  assert.match(await page.locator(MAP).getAttribute('aria-label'), new RegExp(`${tokens.length} tokens written, ${echo.length} read`));
  await page.keyboard.press('Escape');
  assert.strictEqual(await page.locator('.looking .marker').isVisible(), false);
  // A token of the text that is chosen shows where it looked most.
  await page.locator('.output .tokens span').nth(2).click();
  const most = weights[2].indexOf(Math.max(...weights[2]));
  assert((await caption.textContent()).startsWith(says(2, most)), await caption.textContent());
  console.log(`by mouse, keys and text: ${await caption.textContent()}`);

  // Another theme, another picture of the same weights.
  const light = await ends(page);
  await press(page, 'Theme: system');
  await press(page, 'Theme: light');
  const dark = await ends(page);
  assert.notDeepStrictEqual(dark, light);
  checkPicture(await picture(page), weights, dark);

  // It grows by a row with each token.
  await generate(page, { seed: '3', tokens: 2 });
  for (let count = 3; count <= 5; count += 1) {
    await page.getByRole('button', { name: 'Step one token' }).and(page.locator(':enabled')).click();
    await page.waitForFunction((many) => document.querySelectorAll('.attention .writes span').length === many, count);
  }
  checkPicture(await picture(page), weights.slice(0, 5), dark);
  await page.getByRole('button', { name: 'Step one token' }).and(page.locator(':enabled')).waitFor();
  console.log(`grown to ${await rows(page)} rows, a token at a time`);

  // A bundle that does not report it: what is left out of the source shows what hangs on it.
  const plain = await open(`${without}/generate`);
  await generate(plain, { seed: '3', tokens: 4 });
  assert.strictEqual(await plain.locator(MAP).count(), 0);
  await plain.locator('.answers a', { hasText: 'Score' }).click();
  await plain.getByLabel('Source').fill('abcab');
  await plain.getByLabel('Answer to score').fill('P Q R');
  await press(plain, 'Score');
  await plain.locator('.alignment tbody tr').nth(4).waitFor();
  console.log(`${without}: without attention, by leaving out`);
});
