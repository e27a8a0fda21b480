// A model over audio: a file, and the microphone (the browser's own, which beeps); its state, and all
// that it answers. MODEL's state is `total`, which halves with each step; it answers it as `level`.
//
// node step.mjs HOST:PORT CHROMIUM MODEL WAV STEPS
import assert from 'node:assert';
import { inBrowser, press, rest } from './browser.mjs';

const [model, file, steps] = rest;

await inBrowser(async (open) => {
  const page = await open(model);
  const drawn = () => page.locator('.output canvas.wave').evaluate((canvas) => canvas.toDataURL());
  const blank = await drawn();
  await page.locator('input[type=file]').setInputFiles(file);
  await page.locator('.output .status', { hasText: `${steps} steps` }).waitFor();
  const plain = await drawn();
  assert(plain.length > blank.length, 'a waveform and its line are drawn');
  assert(await page.locator('.segments li').count() > 0);
  console.log(`a file: ${await page.locator('.output .status').textContent()} ${await page.locator('.segments').textContent()}`);

  // One unit colours the waveform; the ways part at a place in it.
  const map = page.locator('canvas[data-tensor="total"]');
  await map.focus();
  await page.keyboard.press('ArrowRight');
  const total = Number((await page.locator('.map .value').textContent()).split(': ')[1]);
  await page.evaluate(() => new Promise((resolve) => { requestAnimationFrame(() => requestAnimationFrame(resolve)); }));
  assert.notStrictEqual(await drawn(), plain, 'the waveform takes the unit’s colour');
  const wave = page.locator('.output canvas.wave');
  await wave.focus();
  for (let n = 0; n < 3; n += 1) await page.keyboard.press('ArrowRight');
  assert.match(await page.locator('.fork > .hint').textContent(), /^After frame 3: unit 0 of total/);
  await page.getByLabel('Hold it for frames').fill('1');
  await page.getByLabel('Frames each way').fill('4');
  await press(page, 'Go on both ways');
  await page.locator('.ways section:nth-child(1) .status', { hasText: '4 frames.' }).waitFor();
  const said = await page.locator('.ways section:nth-child(2) > .status').textContent();
  assert.match(said, /^4 frames, other answers from frame 1 on; changed [0-9a-f]{12}\.$/);
  console.log(`a unit of the state changed: ${said}`);

  // Begun from the state at the end, the first level has half of it more.
  const level = async () => {
    await page.locator('canvas[data-output="level"]').focus();
    await page.keyboard.press('ArrowLeft');
    await page.keyboard.press('ArrowRight');
    await page.keyboard.press('ArrowLeft');
    const caption = await page.locator('.strip .value').textContent();
    assert.match(caption, /^step 1, 0: /);
    return Number(caption.split(': ')[1]);
  };
  const first = await level();
  await wave.focus();
  await page.keyboard.press('End');
  const keeping = page.locator('.keeping', { hasText: 'Keep this state' });
  await keeping.getByLabel('Name to keep it under').fill('end');
  await keeping.getByRole('button').click();
  await keeping.locator('.status', { hasText: 'Kept end' }).waitFor();
  await page.getByLabel('Begin from').selectOption('end');
  await page.locator('.output .status', { hasText: `${steps} steps` }).waitFor();
  const later = await level();
  assert(Math.abs(later - first - total / 2) < 2e-3, `${later}, ${first}, ${total}`);
  assert.match(await page.locator('pre').textContent(), /state="end"/);
  await press(page, 'Forget it');
  await page.waitForFunction(() => ![...document.querySelectorAll('option')].some((option) => option.value === 'end'));
  console.log(`from a state that was kept: level ${first}, then ${later}`);

  await press(page, 'Listen');
  await page.waitForFunction(() => Number(document.querySelector('.output .status').textContent.replace(/ .*/, '').replace(',', '')) > 20);
  await press(page, 'Stop listening');
  await page.getByRole('button', { name: 'Listen', exact: true }).waitFor();
  assert.strictEqual(await page.locator('.refusal').count(), 0);
  console.log('the microphone: heard, answered, and let go');

  await page.locator('input[type=file]').setInputFiles({ name: 'no.wav', mimeType: 'audio/wav', buffer: Buffer.from('no audio') });
  await page.locator('.refusal', { hasText: 'cannot be read as audio' }).waitFor();
});
