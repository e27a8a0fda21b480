// A model over audio: a file, and the microphone (the browser's own, which beeps).
//
// node step.mjs HOST:PORT CHROMIUM MODEL WAV STEPS
import assert from 'node:assert';
import { inBrowser, press, rest } from './browser.mjs';

const [model, file, steps] = rest;

await inBrowser(async (open) => {
  const page = await open(model);
  const drawn = () => page.locator('canvas.wave').evaluate((canvas) => canvas.toDataURL().length);
  const blank = await drawn();
  await page.locator('input[type=file]').setInputFiles(file);
  await page.locator('.status', { hasText: `${steps} steps` }).waitFor();
  assert(await drawn() > blank, 'a waveform and its line are drawn');
  assert(await page.locator('.segments li').count() > 0);
  console.log(`a file: ${await page.locator('.status').textContent()} ${await page.locator('.segments').textContent()}`);

  await press(page, 'Listen');
  await page.waitForFunction(() => Number(document.querySelector('.output .status').textContent.replace(/ .*/, '').replace(',', '')) > 20);
  await press(page, 'Stop listening');
  await page.getByRole('button', { name: 'Listen', exact: true }).waitFor();
  assert.strictEqual(await page.locator('.refusal').count(), 0);
  console.log('the microphone: heard, answered, and let go');

  await page.locator('input[type=file]').setInputFiles({ name: 'no.wav', mimeType: 'audio/wav', buffer: Buffer.from('no audio') });
  await page.locator('.refusal', { hasText: 'cannot be read as audio' }).waitFor();
});
