// The pictures of docs/page.md.
//
// node pictures.mjs HOST:PORT CHROMIUM FOLDER
import { inBrowser, generate, press, rest } from './browser.mjs';

const [folder] = rest;
const SIZE = { viewport: { width: 1400, height: 1000 } };

/** From the top of one element to the bottom of another. */
async function shoot(page, name, from, to) {
  await page.mouse.move(0, 0);
  await page.evaluate(() => { document.activeElement?.blur(); scrollTo(0, 0); });
  const [top, bottom] = [await page.locator(from).first().boundingBox(), await page.locator(to).first().boundingBox()];
  const clip = { x: top.x - 16, y: top.y - 16, width: top.width + 32, height: bottom.y + bottom.height - top.y + 32 };
  await page.screenshot({ path: `${folder}/${name}.png`, clip, fullPage: true, animations: 'disabled' });
}

async function lineCounter(page, kind) {
  await press(page, kind);
  await generate(page, { tokens: 600 });
  await page.locator('.following li', { hasText: 'place in the line' }).locator('button').click();
}

await inBrowser(async (open) => {
  const page = await open('prose', SIZE);
  await lineCounter(page, 'Hidden states');
  await shoot(page, 'state', '.output', '.following li:last-child');

  const dark = await open('prose', { ...SIZE, colorScheme: 'dark' });
  await lineCounter(dark, 'Cells');
  await dark.locator('.output .tokens span:not(.before)').nth(200).click();
  await dark.getByLabel('Tokens each way').fill('200');
  await dark.getByLabel('Hold it for tokens').fill('120');
  await dark.locator('.forking input[type=range]').fill('-6');
  await press(dark, 'Go on both ways');
  await dark.locator('.ways .status', { hasText: 'another text' }).waitFor();
  await dark.evaluate(() => document.querySelectorAll('.ways .tokens').forEach((box) => { box.scrollTop = 0; }));
  await shoot(dark, 'fork', '.fork', '.ways');

  const looking = await open('translate/generate', SIZE);
  await generate(looking);
  await shoot(looking, 'attention', '.attention', '.attention .looking');

  const translate = await open('translate/score', SIZE);
  await press(translate, 'Score');
  await translate.locator('.alignment').waitFor();
  await shoot(translate, 'alignment', '.answer section', '.alignment');
});
