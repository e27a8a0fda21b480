// Axe's rules on every kind of view, or on that of an audio model alone: light, dark or on a phone.
//
// node appearance.mjs HOST:PORT CHROMIUM light|dark|phone [MODEL WAV]
import assert from 'node:assert';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { generate, inBrowser, PHONE, press, rest, WIDE } from './browser.mjs';

const axe = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const SERIOUS = new Set(['serious', 'critical']);
const [how, audio, file] = rest;
const OPTIONS = { light: WIDE, dark: { ...WIDE, colorScheme: 'dark' }, phone: PHONE };
const VIEWS = audio ? [[audio, null], [audio, heard]] : [
  ['prose/generate', generate], ['prose/generate', byUnit], ['prose/generate', forked], ['prose/generate', held], ['translate/generate', looking], ['prose/card', null], ['prose/many', null],
  ['translate/score', (page) => answered(page, 'Score', '.alignment')],
  ['translate/beam', (page) => answered(page, 'Search', '.rank')],
  ['sentiment', (page) => answered(page, 'Classify', '.parts')],
  ['pos-online', (page) => answered(page, 'Tag', '.tag')], ['pos-online', typed],
  ['prose/next', (page) => answered(page, 'Look ahead', '.answer .bars')],
  ['translate/embed', (page) => answered(page, 'Compare', '.similarity')],
  ['vowels', (page) => answered(page, 'Classify', '.bars')],
  ['vowels-online/step', frames],
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

/** Both ways on from a changed unit, another one changed beside it. */
async function bothWays(page) {
  await page.locator('canvas[data-tensor]').first().focus();
  await page.keyboard.press('ArrowRight');
  await press(page, 'And another unit');
  await page.locator('canvas[data-tensor]').first().focus();
  await page.keyboard.press('ArrowRight');
  await page.getByLabel(/^Hold it for/).fill('2');
  await press(page, 'Go on both ways');
  await page.locator('.ways .status', { hasText: /all the same|from \w+ \d+ on/ }).waitFor();
}

async function forked(page) {
  await generate(page, { tokens: 40 });
  await page.getByLabel('Tokens each way').fill('20');
  await bothWays(page);
}

async function held(page) {
  for (const [kind, label] of [['regex', 'An expression'], ['json', 'A JSON schema'], ['choices', 'One of these']]) {
    if (!(await page.getByLabel('Held to').isVisible())) await page.locator('summary', { hasText: 'Hold the text to a form' }).click();
    await page.getByLabel('Held to').selectOption(kind);
    await page.getByLabel(label).waitFor();
  }
  await page.locator('summary', { hasText: 'More ways to draw' }).click();
}

async function typed(page) {
  await page.locator('.online textarea').fill('The man can fish in the river ');
  await page.locator('.online .tag').nth(6).waitFor();
  await page.locator('.output .tag').nth(2).click();
  await bothWays(page);
}

async function frames(page) {
  await answered(page, 'Step', '.tag');
  await page.locator('.status', { hasText: '7 frames of 7' }).waitFor();
  await page.locator('.output .tag').nth(2).click();
  await bothWays(page);
}

async function heard(page) {
  await page.locator('input[type=file]').setInputFiles(file);
  await page.locator('.output .status', { hasText: '2,000 steps' }).waitFor();
  await page.locator('.output canvas.wave').focus();
  await page.keyboard.press('ArrowRight');
  await page.getByLabel('Frames each way').fill('20');
  await bothWays(page);
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
  for (const [path, fill] of VIEWS) {
    const page = await open(path, OPTIONS[how]);
    await fill?.(page);
    assert.deepStrictEqual(await findings(page), [], `${how}, ${path}`);
    const over = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert(over <= 0, `${how}, ${path}: ${over} px wider than the window`);
    await page.close();
  }
  console.log(`${how}: ${VIEWS.length} views without serious findings, none wider than its window`);
});
