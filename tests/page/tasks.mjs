// Every task once, as a visitor does it.
import assert from 'node:assert';
import { call, generate, inBrowser, made, origin, press, stream } from './browser.mjs';

await inBrowser(async (open) => {
  const page = await open('prose');
  const text = await generate(page, { tokens: 120 });
  const asked = { model: 'prose', prompt: 'ROMEO:\n', maxTokens: 120, sampling: { seed: '7' } };
  const expected = (await stream(asked)).tokens.map((token) => token.text).join('');
  assert.strictEqual(text, expected, 'the page shows what the call answers');
  assert.match(await page.locator('.output .status').textContent(), /^120 tokens(, [\d,]+ a second)?, the first after \d+ ms, seed 7/);

  // The likeliest tokens beside one, by mouse and by keyboard.
  await page.locator('.output .tokens span:not(.before)').last().hover();
  assert.strictEqual(await page.locator('.tip li').count(), 5);
  await page.locator('.output .tokens').focus();
  await page.keyboard.press('Home');
  assert.match(await page.locator('.tip').textContent(), /%/);
  await page.keyboard.press('Escape');
  assert(!(await page.locator('.tip').isVisible()));

  // Sampling that is not the model's own is sent, and shown in the call.
  await page.getByLabel('Temperature').fill('0');
  assert.match(await page.locator('pre').textContent(), /temperature=0/);
  assert.strictEqual(await generate(page, { seed: '1', tokens: 60 }), await generate(page, { seed: '2', tokens: 60 }));
  for (const [way, says] of [['curl', /printf '\\000\\000.*application\/connect\+json/s], ['grpcurl', /^grpcurl -plaintext -d '.*' .* unroll\.v1\.UnrollService\/Generate$/]]) {
    await press(page, way);
    assert.match(await page.locator('pre').textContent(), says);
  }
  console.log(`generate: ${JSON.stringify(text.slice(0, 40))}`);

  const go = async (path) => { await page.goto(`${origin}/#/${path}`); await page.locator('h1').waitFor(); };

  await go('sentiment');
  await press(page, 'Classify');
  await page.locator('.parts').waitFor();
  const { classifications } = await call('Classify', { model: 'sentiment', texts: ['The food was not bad, great in fact'] });
  assert.strictEqual(await page.locator('.bars .name').first().textContent(), classifications[0].labels[0].label);
  const moved = await page.locator('.parts span').evaluateAll((spans) => spans.filter((span) => /^[un][5-9]|^[un]10/.test(span.className)).map((span) => span.textContent.trim()));
  assert(moved.includes('not') || moved.includes('bad,'), `what moved it: ${moved}`);
  console.log(`classify: moved by ${moved}`);

  await go('pos-online');
  await press(page, 'Tag');
  await page.locator('.answer .tag').first().waitFor();
  assert.strictEqual(await page.locator('.answer .tag').count(), 6);
  await page.locator('.online textarea').pressSequentially('They can fish ');
  await page.locator('.online .tag').nth(2).waitFor();
  const online = await page.locator('.online .tag').allTextContents();
  assert.deepStrictEqual(online, ['Theyppss', 'canmd', 'fishvb']);
  // Another beginning is another stream.
  await page.locator('.online textarea').fill('The can ');
  await page.locator('.online .tag', { hasText: 'The' }).waitFor();
  await page.locator('.online .tag').nth(1).waitFor();
  assert.strictEqual(await page.locator('.online .tag').count(), 2);
  console.log(`tag: ${online}`);

  await go('cloze');
  await press(page, 'Fill in');
  await page.locator('.bars button').nth(1).click();
  assert.strictEqual(await page.locator('mark').textContent(), await page.locator('.bars button').nth(1).textContent());
  console.log(`fill: ${await page.locator('.parts').textContent()}`);

  await go('g2p/generate');
  const phones = await generate(page, { seed: '7' });
  assert.match(phones, /R OW L D$/);
  console.log(`seq2seq: ${phones}`);

  await go('translate/score');
  await press(page, 'Score');
  await page.locator('.alignment tbody tr').first().waitFor();
  assert.strictEqual(await page.locator('.alignment tbody tr').count(), 10);
  const row = page.locator('.alignment tbody tr', { hasText: 'heavens' }).locator('td');
  const heavens = await row.evaluateAll((cells) => cells.findIndex((cell) => cell.className === 'u10'));
  assert.match(await page.locator('.alignment thead th').nth(heavens).textContent(), /cielos/);
  console.log('score: heavens is cielos');

  await go('prose/score');
  await page.getByLabel('Text', { exact: true }).fill('To be, or not to ');
  await page.getByLabel('Ways to go on').fill('go\nbe');
  await press(page, 'Score');
  await page.locator('.answer .bars li').nth(1).waitFor();
  const { scores } = await call('Score', { model: 'prose', items: [{ text: 'To be, or not to ', choices: ['go', 'be'] }] });
  assert.deepStrictEqual(await page.locator('.answer .bars .name').allTextContents(), ['be', 'go']);
  assert(scores[0].choices[1].probability > 0.5, 'be is likelier');
  console.log(`score: ${await page.locator('.answer .bars li').first().textContent()}`);

  // The likeliest next tokens, and on from one of them.
  await go('prose/next');
  await page.getByLabel('Prompt').fill('To be, or not to b');
  await page.getByLabel('Tokens shown').fill('5');
  await press(page, 'Look ahead');
  await page.locator('.answer .bars li').nth(4).waitFor();
  const ahead = async (text) => (await call('Score', { model: 'prose', items: [{ text, topNextTokens: 5 }] })).scores[0].nextTokens;
  const next = await ahead('To be, or not to b');
  assert.deepStrictEqual(await page.locator('.answer .bars .name').allTextContents(), next.map((token) => (token.text === ' ' ? '␣' : token.text)));
  assert.strictEqual(parseFloat(await page.locator('.answer .bars .number').first().textContent()), Number((100 * Math.exp(next[0].logProbability)).toFixed(next[0].logProbability > Math.log(0.0995) ? 0 : 1)));
  await page.locator('.answer .bars button').first().click();
  assert.strictEqual(await page.getByLabel('Prompt').inputValue(), `To be, or not to b${next[0].text}`);
  const after = await ahead(`To be, or not to b${next[0].text}`);
  await page.locator('.answer:not([aria-busy]) .bars .name', { hasText: after[0].text.trim() || '␣' }).first().waitFor();
  await go('g2p/next');
  await press(page, 'Look ahead');
  await page.locator('.answer .bars li').first().waitFor();
  console.log(`next: ${next.map((token) => token.text)}; of a source ${await page.locator('.answer .bars .name').first().textContent()}`);

  await go('translate/embed');
  await press(page, 'Compare');
  await page.locator('.similarity tbody tr').nth(2).waitFor();
  const { embeddings } = await call('Embed', { model: 'translate', texts: (await page.getByLabel('Texts').inputValue()).split('\n') });
  const cosines = embeddings.map((one) => embeddings.map((other) => one.values.reduce((sum, value, n) => sum + value * other.values[n], 0).toFixed(2)));
  assert.deepStrictEqual(await page.locator('.similarity tbody td').allTextContents(), cosines.flat());
  assert(cosines[0][1] > cosines[0][2], 'verses that say alike are nearer');
  console.log(`embed: ${cosines[0]}`);

  await go('vowels');
  await press(page, 'Classify');
  await page.locator('.answer .bars li').first().waitFor();
  const rows = (await page.getByLabel('Frames').inputValue()).split('\n').map((line) => line.split(',').map(Number));
  const frames = [{ shape: [rows.length, rows[0].length], floats: rows.flat() }];
  const { classifications: [speakers] } = await call('Classify', { model: 'vowels', frames });
  assert.strictEqual(await page.locator('.answer .bars .name').first().textContent(), speakers.labels[0].label);
  await page.getByLabel('Frames').fill('1, 2');
  await press(page, 'Classify');
  await page.locator('.refusal', { hasText: 'cannot be served as it stands' }).waitFor();
  console.log(`frames: ${speakers.labels[0].label}; refused: ${await page.locator('.refusal p').textContent()}`);

  await go('translate/beam');
  await press(page, 'Search');
  await page.locator('.tree .rank').nth(4).waitFor();
  const ranks = await page.locator('.tree .rank').allTextContents();
  assert.deepStrictEqual(ranks.map((rank) => rank[0]).sort(), ['1', '2', '3', '4', '5']);
  console.log(`beams: ${ranks.length}`);

  await go('food/generate');
  assert.match(await generate(page, { seed: '7' }), /^Cheese, /);
  console.log(`vec2seq: ${await made(page)}`);

  await go('monthly');
  await press(page, 'Forecast');
  await page.locator('.fan .status', { hasText: '24 of 24 steps' }).waitFor();
  assert.strictEqual(await page.locator('.fan path').count(), 4);
  console.log(`forecast: ${await page.locator('.fan .status').textContent()}`);

  await go('prose/many');
  await page.getByLabel('Streams', { exact: true }).fill('16');
  await page.getByLabel('Tokens each').fill('60');
  await press(page, 'Start');
  await page.locator('.status', { hasText: '16 streams of 16 done, 960 tokens' }).waitFor();
  await page.locator('.answers > .hint', { hasText: 'By the server’s own metrics: 960 tokens' }).waitFor();
  console.log(`many: ${await page.locator('.answers > .status').textContent()}`);

  await go('prose/card');
  const card = await page.locator('.card').textContent();
  const { model } = await call('GetModel', { name: 'prose' });
  for (const said of [model.figures[0].name, model.data[0].licence, model.digest, 'hidden_1 (512)']) assert(card.includes(said), said);
  console.log('card: figures, licence, digest, state');
  await go('monthly/card');
  const floors = page.locator('.card table', { hasText: 'Without a network' });
  await floors.locator('td', { hasText: 'the last season again' }).first().waitFor();
  console.log(`floors: ${await floors.locator('tbody tr').first().textContent()}`);

  await page.goto(`${origin}/#/nothing`);
  await page.locator('.refusal', { hasText: 'No model nothing' }).waitFor();
});
