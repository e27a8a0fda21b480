// StreamStep over audio as it comes, from a file or the microphone: an answer a step, and the state that it leaves.
import { field, h, plural, refusal, show } from './dom.js';
import { callBox } from './code.js';
import { NumberProperties } from './follow.js';
import { NamedStates } from './named.js';
import { PushedStream, push } from './pushed.js';
import { StatePanel } from './state.js';
import { METHOD, framesStepView, sizeOf, stripsOf, valuesOf } from './steps.js';
import { Wave, segmentsOf } from './wave.js';

// Steps in a frame at most, seconds that it is long if it has several, and frames that may be
// unanswered. The state comes once a frame.
const [STEPS, FRAME_SECONDS, AHEAD] = [16, 0.016, 8];
const SECONDS = 5;

function base64(samples) {
  const bytes = new Uint8Array(samples.buffer, samples.byteOffset, samples.byteLength);
  let text = '';
  for (let at = 0; at < bytes.length; at += 8192) text += String.fromCharCode(...bytes.subarray(at, at + 8192));
  return btoa(text);
}

const frameOf = (samples) => ({ frame: { inputs: [{ raw: base64(samples) }] } });

/** A stream of frames under way. Steps that are not whole wait for more samples. */
class Frames {
  constructor(start, size, most, on) {
    this.size = size;
    this.most = most;
    this.waiting = [];
    this.held = 0;
    this.unanswered = 0;
    this.isOpen = this.isEnded = false;
    this.call = push(METHOD, start, {
      open: () => { this.isOpen = true; this.#pump(); },
      message: (message) => {
        this.unanswered -= message.results?.length ?? 0;
        on.message(message);
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
      const steps = Math.min(this.most, Math.floor(this.held / this.size));
      this.call.send(frameOf(this.#take(steps * this.size)));
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

/** The wave of frames that come with their samples. */
class Way extends Wave {
  append(tokens) {
    tokens.forEach(({ samples }) => this.hear(samples));
    super.append(tokens);
  }
}

const loudnessOf = (samples) => Math.sqrt(samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length);

function audioStream(model, signal, named, wave, again) {
  return new PushedStream(model, METHOD, named, signal, {
    noun: 'frame', spot: 'a place in the waveform', whole: 'the waveform', otherwise: 'other answers', unshaded: 'No colour',
    shown: wave,
    options: { typed: true },
    part: ({ samples }) => frameOf(samples),
    read: ({ results = [] }) => {
      let from = wave.values.length;
      return results.map(({ position = 0, steps = 0, outputs = [], state }) => {
        // Of a frame that is read once more, what it was the first time is known.
        const known = wave.tokens[position];
        const samples = known?.samples ?? wave.samples.slice(from * wave.size, (from + steps) * wave.size);
        const all = outputs.map(valuesOf);
        const each = (all[0]?.length ?? 0) / steps;
        const values = Array.from({ length: steps }, (_, n) => all[0]?.[n * each] ?? 0);
        from += steps;
        return { steps, values, all, samples, state, answer: values.at(-1), loudness: loudnessOf(samples) };
      });
    },
    way: (label) => new Way(wave.rate, wave.size, wave.threshold, 0, signal, undefined, label),
    properties: () => new NumberProperties([['the answer', 'answer'], ['loudness', 'loudness']]),
    again,
  });
}

export function stepView(model, signal) {
  const [input] = model.stepper.inputs ?? [];
  const attributes = model.stepper.attributes ?? {};
  const rate = Number(attributes.sample_rate);
  if (model.stepper.inputs?.length !== 1 || !(rate > 0)) return framesStepView(model, signal);
  const size = sizeOf(input);
  const most = Math.max(1, Math.min(STEPS, model.stepper.messageSteps ?? 1, Math.round((FRAME_SECONDS * rate) / size)));
  const threshold = attributes.threshold === undefined ? undefined : Number(attributes.threshold);
  const wave = new Wave(rate, size, threshold, SECONDS, signal, (position) => stream.panel?.at(position));
  const said = h('p', { class: 'status', role: 'status' }, 'Choose a file, or listen.');
  const problem = h('div');
  const found = h('ol', { class: 'segments' });
  const file = h('input', { type: 'file', accept: 'audio/*' });
  const listen = h('button', { type: 'button', class: 'main', onclick: () => (stopListening ? stopListening() : hear()) }, 'Listen');
  const named = new NamedStates(model, signal, METHOD);
  const strips = stripsOf(model, signal);
  const stream = audioStream(model, signal, named, wave, () => { if (wave.filled) readAgain(); });
  if (model.state?.length) stream.panel = new StatePanel(model, wave, stream, signal, named);
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
    stream.clear();
    strips.clear();
    wave.clear(samples);
    report();
    frames = new Frames(stream.start(), size, most, {
      message: (message) => {
        const tokens = stream.read(message);
        stream.append(tokens);
        tokens.forEach(({ all, steps }) => strips.append(all, steps, wave.across));
        report();
      },
      end: (error) => { if (error) show(problem, refusal(error)); report(); },
    });
    return frames;
  }

  /** What was heard, from its beginning. */
  function readAgain() {
    const samples = wave.samples.slice(0, wave.filled);
    const reading = begin(samples);
    reading.push(samples);
    reading.end();
  }

  async function read() {
    if (!file.files.length) return;
    try {
      const decoder = new OfflineAudioContext(1, 1, rate);
      const audio = await decoder.decodeAudioData(await file.files[0].arrayBuffer());
      wave.clear(audio.getChannelData(0).slice());
      readAgain();
      call.update();
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
  // Of a whole file the call is long: its first step is shown.
  const firstStep = () => (wave.filled < size ? new Float32Array(size) : wave.samples.slice(0, size));
  const call = callBox(() => [METHOD, [{ start: { model: model.name, typed: true, ...named.from() } }, frameOf(firstStep())]],
    [['Shell', () => `python -m unroll vad speech.wav --target ${location.host} --model ${model.name}`]]);
  named.element.addEventListener('change', () => { if (wave.filled) readAgain(); });
  const form = h('form', { class: 'form', onchange: () => call.update(), onsubmit: (event) => event.preventDefault() },
    field('Audio file', file, `Any that this browser can decode; it is resampled to ${rate.toLocaleString('en')} Hz here.`),
    h('div', { class: 'buttons' }, listen), named.element,
    h('p', { class: 'hint' }, `Each step is ${size} samples, ${(1000 * size) / rate} ms. What the microphone hears goes to this server, and nowhere else; it keeps nothing but a state that is given a name.`));
  return h('div', { class: 'task' }, form, h('div', { class: 'answers' }, h('section', { class: 'output' }, problem, wave.canvas, said,
    threshold !== undefined && h('p', { class: 'hint' }, `Stretches at or above ${threshold}:`), found), strips.element, stream.panel?.element,
  h('p', { class: 'hint' }, 'The call below has the first step alone; the others follow it likewise.'), call.element));
}
