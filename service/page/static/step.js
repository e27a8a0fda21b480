// StreamStep: numbers in as they come, such as audio from a file or the microphone, an answer a step.
import { field, h, plural, refusal, show } from './dom.js';
import { socket } from './connect.js';
import { codeBox } from './code.js';
import { Wave, segmentsOf } from './wave.js';

// Steps in a frame, and frames that may be unanswered.
const [STEPS, AHEAD] = [16, 8];
const SECONDS = 5;

const sizeOf = ({ shape = [] }) => shape.reduce((product, length) => product * Number(length), 1);

function base64(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = '';
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

/** A stream of frames under way. Steps that are not whole wait for more samples. */
class Frames {
  constructor(model, size, on) {
    this.size = size;
    this.waiting = [];
    this.held = 0;
    this.unanswered = 0;
    this.isOpen = this.isEnded = false;
    this.call = socket('StreamStep', {
      open: () => { this.isOpen = true; this.call.send({ start: { model: model.name, typed: true } }); this.#pump(); },
      message: ({ results = [] }) => {
        for (const result of results) {
          this.unanswered -= 1;
          this.steps = (this.steps ?? 0) + (result.steps ?? 0);
          on.answer(this.steps - (result.steps ?? 0), result);
        }
        this.#pump();
      },
      end: on.end,
    });
  }

  push(samples) { this.waiting.push(samples); this.held += samples.length; this.#pump(); }

  end() { this.isEnded = true; this.#pump(); }

  close() { this.call.close(); }

  #pump() {
    while (this.isOpen && this.unanswered < AHEAD && this.held >= this.size) {
      const steps = Math.min(STEPS, Math.floor(this.held / this.size));
      this.call.send({ frame: { inputs: [{ raw: base64(this.#take(steps * this.size)) }] } });
      this.unanswered += 1;
    }
    if (this.isOpen && this.isEnded && this.held < this.size) { this.isOpen = false; this.call.send(null); }
  }

  #take(count) {
    const taken = new Float32Array(count);
    let have = 0;
    while (have < count) {
      const first = this.waiting[0];
      const part = first.subarray(0, count - have);
      taken.set(part, have);
      have += part.length;
      if (part.length === first.length) this.waiting.shift();
      else this.waiting[0] = first.subarray(part.length);
    }
    this.held -= count;
    return taken;
  }
}

const python = (name, size) => `import numpy as np

from unroll import Client

samples = np.zeros((100, ${size}), np.float32)  # a step in each row
with Client("${location.host}") as client:
    for chunk in client.stream_step(${JSON.stringify(name)}, samples):
        for result in chunk.results:
            print(result.position, result.outputs)`;

export function stepView(model, signal) {
  const [input] = model.stepper.inputs ?? [];
  const attributes = model.stepper.attributes ?? {};
  const rate = Number(attributes.sample_rate);
  if (model.stepper.inputs?.length !== 1 || !(rate > 0)) {
    return h('p', { class: 'hint' }, 'This model steps over numbers that are no audio: call StreamStep, of which the card lists inputs and outputs.');
  }
  const size = sizeOf(input);
  const threshold = attributes.threshold === undefined ? undefined : Number(attributes.threshold);
  const wave = new Wave(rate, size, threshold, SECONDS);
  const said = h('p', { class: 'status', role: 'status' }, 'Choose a file, or listen.');
  const problem = h('div');
  const found = h('ol', { class: 'segments' });
  const file = h('input', { type: 'file', accept: 'audio/*' });
  const listen = h('button', { type: 'button', class: 'main', onclick: () => (stopListening ? stopListening() : hear()) }, 'Listen');
  let frames = null;
  let stopListening = null;
  const end = () => { stopListening?.(); frames?.close(); frames = null; };
  signal.addEventListener('abort', end);

  const seconds = (steps) => ((steps * size) / rate).toFixed(2);
  const report = () => {
    said.textContent = `${plural(wave.values.length, 'step')}, ${seconds(wave.values.length)} s of audio.`;
    if (threshold === undefined) return;
    show(found, segmentsOf(wave.values, threshold).map(([from, to]) => h('li', {}, `${seconds(from)} to ${seconds(to)} s`)));
  };

  function begin(samples) {
    end();
    show(problem);
    show(found);
    wave.clear(samples);
    frames = new Frames(model, size, {
      answer: (position, { steps = 0, outputs = [] }) => {
        const values = outputs[0]?.floats ?? outputs[0]?.doubles ?? [];
        const each = values.length / steps;
        wave.answer(position, Array.from({ length: steps }, (_, n) => values[n * each] ?? 0));
        report();
      },
      end: (error) => { if (error) show(problem, refusal(error)); report(); },
    });
    return frames;
  }

  async function read() {
    if (!file.files.length) return;
    try {
      const decoder = new OfflineAudioContext(1, 1, rate);
      const audio = await decoder.decodeAudioData(await file.files[0].arrayBuffer());
      const samples = audio.getChannelData(0).slice();
      const reading = begin(samples);
      reading.push(samples);
      reading.end();
    } catch (error) {
      show(problem, refusal(Object.assign(new Error(`This file cannot be read as audio (${error.message}).`), { title: 'No audio' })));
    }
  }

  async function hear() {
    try {
      const source = await navigator.mediaDevices.getUserMedia({ audio: { channelCount: 1 } });
      const context = new AudioContext({ sampleRate: rate });
      await context.audioWorklet.addModule('/page/worklet.js');
      const node = new AudioWorkletNode(context, 'listen', { numberOfOutputs: 0 });
      const reading = begin();
      node.port.onmessage = ({ data }) => { wave.hear(data); reading.push(data); };
      context.createMediaStreamSource(source).connect(node);
      listen.textContent = 'Stop listening';
      stopListening = () => {
        stopListening = null;
        listen.textContent = 'Listen';
        node.port.onmessage = null;
        source.getTracks().forEach((track) => track.stop());
        context.close();
        reading.end();
      };
    } catch (error) {
      show(problem, refusal(Object.assign(new Error(`The microphone cannot be used (${error.message}).`), { title: 'No microphone' })));
    }
  }

  file.addEventListener('change', read);
  const call = codeBox([
    ['Python', () => python(model.name, size)],
    ['Shell', () => `python -m unroll vad speech.wav --target ${location.host} --model ${model.name}`],
  ]);
  const form = h('form', { class: 'form', onsubmit: (event) => event.preventDefault() },
    field('Audio file', file, `Any that this browser can decode; it is resampled to ${rate.toLocaleString('en')} Hz here.`),
    h('div', { class: 'buttons' }, listen),
    h('p', { class: 'hint' }, `Each step is ${size} samples, ${(1000 * size) / rate} ms. What the microphone hears goes to this server, and nowhere else; it keeps nothing.`));
  return h('div', { class: 'task' }, form, h('div', { class: 'answers' }, h('section', { class: 'output' }, problem, wave.canvas, said,
    threshold !== undefined && h('p', { class: 'hint' }, `Stretches at or above ${threshold}:`), found), call.element));
}
