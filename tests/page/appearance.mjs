// Light, dark, phone; axe's rules on every kind of view; nothing moves while text streams.
import assert from 'node:assert';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { generate, inBrowser, PHONE, press, WIDE } from './browser.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SERIOUS = new Set(['serious', 'critical']);
const VIEWS = [
  ['prose/generate', generate], ['prose/generate', byUnit], ['translate/generate', looking], ['prose/card', null], ['prose/many', null],
  ['translate/score', (page) => answered(page, 'Score', '.alignment')],
  ['translate/beam', (page) => answered(page, 'Search', '.rank')],
  ['sentiment', (page) => answered(page, 'Classify', '.parts')],
  ['pos-online', (page) => answered(page, 'Tag', '.tag')],
  ['cloze', (page) => answered(page, 'Fill in', '.bars')],
  ['monthly', (page) => answered(page, 'Forecast', '.fan path')],
  ['food/generate', null],
];

async function answered(page, button, shown) {
  await press(page, button);
  await page.locator(shown).first().waitFor();
}

async function byUnit(page) {
  await generate(page);
  await page.locator('.following button').first().click();
  await page.locator('.output .tokens span:not(.before)').last().hover();
}

async function looking(page) {
  await generate(page);
  await page.locator('canvas[data-tensor="attention"]').focus();
  await page.keyboard.press('ArrowDown');
}

async function findings(page) {
  await page.evaluate(axe);
  const { violations } = await page.evaluate(() => globalThis.axe.run(document, { resultTypes: ['violations'] }));
  return violations.filter(({ impact }) => SERIOUS.has(impact)).map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => `${node.html.slice(0, 120)} ${node.failureSummary?.split('\n')[1] ?? ''}`).join(' | ')}`);
}

await inBrowser(async (open) => {
  for (const [name, options] of [['light', WIDE], ['dark', { ...WIDE, colorScheme: 'dark' }], ['phone', PHONE]]) {
    for (const [path, fill] of VIEWS) {
      const page = await open(path, options);
      await fill?.(page);
      assert.deepStrictEqual(await findings(page), [], `${name}, ${path}`);
      const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert(over <= 0, `${name}, ${path}: ${over} px wider than the window`);
      await page.close();
    }
    console.log(`${name}: ${VIEWS.length} views without serious findings, none wider than its window`);
  }

  // The switch goes round, and is kept.
  const page = await open('prose');
  const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await paper();
  await page.getByRole('button', { name: 'Theme: system' }).click();
  assert.strictEqual(await paper(), light);
  await page.getByRole('button', { name: 'Theme: light' }).click();
  const dark = await paper();
  assert.notStrictEqual(dark, light);
  await page.reload();
  await page.getByRole('button', { name: 'Theme: dark' }).waitFor();
  assert.strictEqual(await paper(), dark);

  // Without a mouse: from the top to a made text.
  await page.keyboard.press('Tab');
  assert.strictEqual(await page.evaluate(() => document.activeElement.className), 'skip');
  await page.keyboard.press('Enter');
  assert.strictEqual(await page.evaluate(() => document.activeElement.id), 'main');
  await page.getByLabel('Prompt').focus();
  await page.keyboard.press('Control+Enter');
  await page.locator('.output .status', { hasText: 'Ended:' }).waitFor();

  await page.evaluate(() => {
    globalThis.shift = 0;
    new PerformanceObserver((list) => { for (const entry of list.getEntries()) globalThis.shift += entry.value; }).observe({ type: 'layout-shift', buffered: false });
  });
  await generate(page, { seed: '3' });
  const shift = await page.evaluate(() => globalThis.shift);
  assert(shift < 0.01, `what is shown moved by ${shift} while text came`);
  console.log(`layout shift while text came: ${shift}`);
});
