// A service that asks for tokens: the page does too, and uses it for fetch and WebSocket.
//
// node token.mjs HOST:PORT CHROMIUM TOKEN
import assert from 'node:assert';
import { generate, inBrowser, origin, press, rest } from './browser.mjs';

const [token] = rest;

await inBrowser(async (open) => {
  const page = await open('prose');
  await page.locator('.refusal', { hasText: 'asks for a token' }).waitFor();
  await page.getByLabel('Bearer token').fill('not this one');
  await press(page, 'Use it');
  await page.locator('.refusal').waitFor();
  await page.getByLabel('Bearer token').fill(token);
  await press(page, 'Use it');
  await page.locator('h1', { hasText: 'prose' }).waitFor();
  assert.strictEqual((await generate(page, { tokens: 40 })).length, 40);

  await page.goto(`${origin}/#/pos-online`);
  await page.locator('.online textarea').pressSequentially('They can ');
  await page.locator('.online .tag').nth(1).waitFor();

  const kept = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }, document.cookie]));
  assert(!kept.includes(token), 'it is kept by the page alone');
  console.log('asked for a token, and used it by fetch and WebSocket');
});
