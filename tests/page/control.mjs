// Presets, text held to a form, and states with a name.
//
// node control.mjs HOST:PORT CHROMIUM GENERATOR SEQ2SEQ
import assert from 'node:assert';
import { call, generate, inBrowser, made, press, rest, stream } from './browser.mjs';

const [generator, translator] = rest;
const text = ({ tokens }) => tokens.map((token) => token.text).join('');
const code = (page) => page.locator('pre').textContent();

await inBrowser(async (open) => {
  const page = await open(`${generator}/generate`);
  await page.getByLabel('Prompt').fill('abc');

  // A preset says what is drawn; what is set beside it comes before it.
  await page.getByLabel('Preset').selectOption('careful');
  assert.strictEqual(await page.getByLabel('Temperature').inputValue(), '0.6');
  const asked = { model: generator, prompt: 'abc', maxTokens: 40 };
  assert.strictEqual(await generate(page, { seed: '5', tokens: 40 }), text(await stream({ ...asked, preset: 'careful', sampling: { seed: '5' } })));
  assert.match(await code(page), /preset="careful"/);
  assert.doesNotMatch(await code(page), /temperature/);
  await page.getByLabel('Temperature').fill('0.2');
  assert.strictEqual(await generate(page, { seed: '5' }), text(await stream({ ...asked, preset: 'careful', sampling: { seed: '5', temperature: 0.2 } })));
  assert.match(await code(page), /preset="careful",[^]*temperature=0\.2/);
  await page.getByLabel('Preset').selectOption('');
  assert.doesNotMatch(await code(page), /preset|temperature/);
  console.log('a preset, and what comes before it');

  // Held to a form; what the vocabulary cannot spell is refused in words.
  await page.locator('summary', { hasText: 'Hold the text to a form' }).click();
  await page.getByLabel('Held to').selectOption('regex');
  await page.getByLabel('An expression').fill('[a-c]{8}');
  assert.match(await generate(page, { seed: '5' }), /^[a-c]{8}$/);
  assert.match(await code(page), /regex="\[a-c\]\{8\}"/);
  await page.getByLabel('Held to').selectOption('choices');
  await page.getByLabel('One of these').fill('ab\ndef');
  assert.match(await generate(page, { seed: '5' }), /^(ab|def)$/);
  assert.match(await code(page), /choices=\["ab", "def"\]/);
  await page.getByLabel('Held to').selectOption('json');
  await page.getByLabel('A JSON schema').fill('{"type": "integer"}');
  assert.match(await code(page), /json_schema="\{\\"type\\": \\"integer\\"\}"/);
  await page.getByLabel('Held to').selectOption('choices');
  await page.getByLabel('One of these').fill('9');
  await press(page, 'Generate');
  await page.locator('.output .refusal', { hasText: 'cannot be served as it stands' }).waitFor();
  console.log(`held to a form; refused: ${await page.locator('.output .refusal p').textContent()}`);
  await page.getByLabel('Held to').selectOption('');

  // A state is kept in the middle of a text, and streams begin from it where it was.
  await page.getByLabel('Temperature').fill('0');
  const whole = await generate(page, { seed: '5', tokens: 60 });
  assert.strictEqual(await page.getByLabel('Begin from').isVisible(), false, 'there is none yet');
  await page.locator('.output .tokens span:not(.before)').nth(19).click();
  const keeping = page.locator('.keeping').first();
  await keeping.getByLabel('Name to keep it under').fill('here');
  await keeping.getByRole('button', { name: 'Keep this state' }).click();
  await keeping.locator('.status', { hasText: 'Kept here' }).waitFor();
  const { states } = await call('ListStates', {});
  assert.deepStrictEqual(states.map(({ name, model, method }) => [name, model, method]), [['here', generator, 'Generate']]);
  await keeping.getByRole('button', { name: 'Keep this state' }).click();
  await keeping.locator('.refusal', { hasText: 'That name is taken' }).waitFor();
  await page.getByLabel('Begin from').selectOption('here');
  await page.getByLabel('Prompt').fill('');
  assert.strictEqual(await generate(page, { seed: '5', tokens: 40 }), whole.slice(20), 'it goes on as the stream did');
  assert.match(await code(page), /state="here"/);
  assert.doesNotMatch(await code(page), /prompt/);
  await page.getByLabel('Prompt').fill('gh');
  assert.strictEqual(await generate(page, { seed: '5', tokens: 10 }), text(await stream({ model: generator, state: 'here', prompt: 'gh', maxTokens: 10, sampling: { seed: '5', temperature: 0 } })));
  console.log(`kept after token 20: ${await keeping.locator('.status').textContent() || 'here'}`);

  // Several units are changed at once, and the changed state is kept.
  await page.locator('canvas[data-tensor="hidden_0"]').focus();
  await page.keyboard.press('ArrowRight');
  await press(page, 'And another unit');
  await page.keyboard.press('Tab');
  await page.locator('canvas[data-tensor="hidden_1"]').focus();
  await page.keyboard.press('ArrowRight');
  assert.strictEqual(await page.locator('.changes li').count(), 1);
  await page.getByLabel('Tokens each way').fill('12');
  await page.getByLabel('Hold it for tokens').fill('1');
  await press(page, 'Go on both ways');
  await page.locator('.ways .status', { hasText: /all the same|another text/ }).waitFor();
  assert.match(await page.locator('.ways h4').nth(1).textContent(), /^hidden_0, unit 0 = 1; hidden_1, unit 0 = 1$/);
  const { points } = await stream({ model: generator, state: 'here', prompt: 'gh', maxTokens: 10, resumeAtEnd: true, sampling: { seed: '5', temperature: 0 } });
  const setState = ['hidden_0', 'hidden_1'].map((tensor) => ({ tensor, units: [0], values: [1] }));
  const first = await stream({ model: generator, resumeToken: points.at(-1).token, setState, maxTokens: 1, resumeAtEnd: true });
  const changed = await stream({ model: generator, resumeToken: first.points.at(-1).token, maxTokens: 11, resumeAtEnd: true });
  assert.strictEqual(await made(page, '.ways section:nth-child(2) .tokens'), text(first) + text(changed));
  const changing = page.locator('.ways .keeping');
  await changing.getByLabel('Name to keep it under').fill('changed');
  await changing.getByRole('button', { name: 'Keep the changed state' }).click();
  await changing.locator('.status', { hasText: 'Kept changed' }).waitFor();
  await page.getByLabel('Begin from').selectOption('changed');
  await page.getByLabel('Prompt').fill('');
  const later = await stream({ model: generator, resumeToken: changed.points.at(-1).token, maxTokens: 10, resumeAtEnd: true });
  assert.strictEqual(await generate(page, { seed: '5', tokens: 10 }), text(later), 'it goes on as the changed way would');
  await page.locator('canvas[data-tensor="hidden_0"]').focus();
  console.log('two units changed, and the changed state kept');

  for (const name of ['changed', 'here']) {
    await page.getByLabel('Begin from').selectOption(name);
    await press(page, 'Forget it');
    await page.waitForFunction((gone) => ![...document.querySelectorAll('option')].some((option) => option.value === gone), name);
  }
  assert.strictEqual(await page.getByLabel('Begin from').isVisible(), false);
  assert.doesNotMatch(await code(page), /state=/);

  // Of a model that reads a source, the source is kept.
  const other = await open(`${translator}/generate`);
  await other.getByLabel('Source').fill('abcab');
  const answer = await generate(other, { seed: '3', tokens: 20 });
  await other.getByLabel('Name to keep it under').fill('read');
  await press(other, 'Keep this source');
  await other.locator('.keeping .status', { hasText: 'Kept read' }).waitFor();
  await other.getByLabel('Begin from').selectOption('read');
  await other.getByLabel('Source').fill('k');
  assert.strictEqual(await generate(other, { seed: '3', tokens: 20 }), answer);
  assert.deepStrictEqual(await other.locator('.attention .reads span').allTextContents(), ['1', '2', '3', '4', '5'], 'of its tokens the places are known');
  console.log('a source that was kept');
});
