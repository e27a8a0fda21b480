// A model whose card and answers hold markup, a refusal, a server that ends: shown in words, run by nobody.
//
// node safety.mjs HOST:PORT CHROMIUM MODEL; MODEL's description, label, figure and licence are markup
import assert from 'node:assert';
import { inBrowser, origin, press, rest } from './browser.mjs';

const [classifier, tagger] = rest;
const MARKUP = '<img src=x onerror="globalThis.ran=1"><script>globalThis.ran=1</script>';

await inBrowser(async (open) => {
  const page = await open(classifier);
  assert.strictEqual(await page.locator('.head p').textContent(), MARKUP);
  await page.locator('textarea').fill('good food');
  await press(page, 'Classify');
  await page.locator('.bars .name', { hasText: MARKUP }).first().waitFor();
  await page.getByRole('link', { name: 'Card' }).click();
  const card = await page.locator('.card').textContent();
  assert(card.split(MARKUP).length > 3, card);

  // What a visitor sends comes back as a model's output.
  await page.goto(`${origin}/#/${tagger}`);
  await page.locator('textarea').first().fill(`the ${MARKUP.replaceAll(' ', '')} food`);
  await press(page, 'Tag');
  await page.locator('.answer .tag').first().waitFor();
  assert.match(await page.locator('.answer .tags').textContent(), /<.*onerror.*<.*script/s);
  assert.strictEqual(await page.locator('main img, main script').count(), 0);
  assert.strictEqual(await page.evaluate(() => globalThis.ran), undefined);
  console.log('markup in a card, a label and a token stays text');

  // The policy holds for scripts that get in all the same.
  const held = await page.evaluate(async () => {
    const inline = document.createElement('script');
    inline.append('globalThis.ran = 1');
    let refused = 0;
    document.body.append(inline);
    try { inline.text = 'globalThis.ran = 1'; } catch { refused += 1; }
    try { document.body.innerHTML = '<b>no</b>'; } catch { refused += 1; }
    try { await fetch('http://127.0.0.1:9/'); } catch { refused += 1; }
    await new Promise((resolve) => { setTimeout(resolve, 50); });
    const found = [globalThis.ran, refused, [...new Set(globalThis.violations.map((violation) => violation.split(':')[0]))].sort()];
    globalThis.violations.length = 0;
    return found;
  });
  assert.strictEqual(held[0], undefined);
  assert.strictEqual(held[1], 3);
  assert(held[2].includes('connect-src') && held[2].includes('require-trusted-types-for'), held[2]);
  console.log(`the policy refuses: ${held[2]}`);

  // A refusal is shown in the server's words, and the form stays as it was.
  await page.locator('textarea').first().fill('');
  await press(page, 'Tag');
  const refused = page.locator('.refusal');
  await refused.waitFor();
  assert.match(await refused.textContent(), /cannot be served as it stands.*items/s);
  assert.strictEqual(await refused.getAttribute('role'), 'alert');
  console.log(`a refusal: ${await refused.textContent()}`);

  // Nobody answers any more.
  await page.context().setOffline(true);
  await page.locator('textarea').first().fill('the food');
  await press(page, 'Tag');
  await page.locator('.refusal', { hasText: 'cannot be reached' }).waitFor();
  await page.context().setOffline(false);
  await press(page, 'Tag');
  await page.locator('.tag').first().waitFor();
  console.log('without a connection it says so, and goes on with one');
}, { mayFail: /ERR_INTERNET_DISCONNECTED|Content Security Policy|TrustedHTML|TrustedScript/, mayCall: /^http:\/\/127.0.0.1:9\// });
