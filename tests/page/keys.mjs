// The switch of themes; the page without a mouse; nothing moves while text streams.
import assert from 'node:assert';
import { generate, inBrowser } from './browser.mjs';

await inBrowser(async (open) => {
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
