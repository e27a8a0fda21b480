// What the page says a call is, of every task: a line of JSON each.
import { inBrowser, origin, press } from './browser.mjs';

const HELD = 'prose/generate, held to a form';
const PATHS = ['prose/generate', 'g2p/beam', 'food/score', 'translate/score', 'prose/score', 'sentiment', 'pos', 'cloze', 'monthly'];

async function say(page, path) {
  if (await page.getByLabel('Tokens at most').count()) await page.getByLabel('Tokens at most').fill('20');
  const said = { path };
  for (const way of ['Python', 'curl', 'grpcurl']) {
    await press(page, way);
    said[way] = await page.locator('pre').textContent();
  }
  console.log(JSON.stringify(said));
}

await inBrowser(async (open) => {
  const page = await open('prose');
  for (const path of PATHS) {
    await page.goto(`${origin}/#/${path}`);
    await page.locator(`.tabs a[aria-current]`).waitFor();
    await page.locator('h1', { hasText: path.split('/')[0] }).waitFor();
    await say(page, path);
  }
  const held = await open('prose');
  await held.locator('summary', { hasText: 'Hold the text to a form' }).click();
  await held.getByLabel('Held to').selectOption('choices');
  await say(held, HELD);
  const likeliest = await open('prose/score');
  await likeliest.getByLabel('Ways to go on').fill('be\ngo');
  await say(likeliest, 'prose/score, ways to go on');
});
