// What the page says a call is, of every task, or at each PATH: a line of JSON each.
//
// node calls.mjs HOST:PORT CHROMIUM [PATH…]
import { inBrowser, origin, rest } from './browser.mjs';

const HELD = 'prose/generate, held to a form';
const PATHS = ['prose/generate', 'g2p/beam', 'g2p/next', 'prose/next', 'food/score', 'translate/score', 'translate/embed', 'prose/score', 'sentiment', 'pos', 'cloze', 'monthly', 'vowels', 'vowels-online/step'];

async function say(page, path, box = page.locator('.call').first()) {
  if (await page.getByLabel('Tokens at most').count()) await page.getByLabel('Tokens at most').fill('20');
  const said = { path };
  for (const way of ['Python', 'curl', 'grpcurl']) {
    await box.getByRole('button', { name: way, exact: true }).click();
    said[way] = await box.locator('pre').textContent();
  }
  console.log(JSON.stringify(said));
}

await inBrowser(async (open) => {
  const page = await open('');
  for (const path of rest.length ? rest : PATHS) {
    await page.goto(`${origin}/#/${path}`);
    await page.locator(`.tabs a[aria-current]`).waitFor();
    await page.locator('h1', { hasText: path.split('/')[0] }).waitFor();
    await say(page, path);
  }
  if (rest.length) return;
  const typed = await open('pos-online');
  await typed.locator('.online textarea').fill('The man can fish ');
  await say(typed, 'pos-online, while typing', typed.locator('.online .call'));
  const held = await open('prose');
  await held.locator('summary', { hasText: 'Hold the text to a form' }).click();
  await held.getByLabel('Held to').selectOption('choices');
  await say(held, HELD);
  const likeliest = await open('prose/score');
  await likeliest.getByLabel('Ways to go on').fill('be\ngo');
  await say(likeliest, 'prose/score, ways to go on');
});
