// A waveform with a line of numbers over it, one for each step.
import { h } from './dom.js';
import { rgb } from './map.js';

const HEIGHT = 200;

/** rate: samples a second. size: samples of a step. threshold: a line across. */
export class Wave {
  constructor(rate, size, threshold, seconds) {
    Object.assign(this, { rate, size, threshold, least: seconds });
    this.canvas = h('canvas', { class: 'wave', role: 'img', 'aria-label': 'Waveform, and the model’s output over it' });
    this.clear();
    new ResizeObserver(() => this.change()).observe(this.canvas);
    addEventListener('themechange', () => this.change());
  }

  clear(samples = new Float32Array(0)) {
    this.samples = samples;
    this.filled = samples.length;
    this.values = [];
    this.change();
  }

  /** What a microphone recorded since. */
  hear(samples) {
    if (this.filled + samples.length > this.samples.length) {
      const more = new Float32Array(2 * (this.samples.length + samples.length));
      more.set(this.samples.subarray(0, this.filled));
      this.samples = more;
    }
    this.samples.set(samples, this.filled);
    this.filled += samples.length;
    this.change();
  }

  /** One for each step from a place on. */
  answer(position, values) {
    values.forEach((value, n) => { this.values[position + n] = value; });
    this.change();
  }

  change() {
    this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.#draw(); });
  }

  #draw() {
    const { canvas, rate, filled, samples, values } = this;
    const width = canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    const height = canvas.height = Math.round(HEIGHT * devicePixelRatio);
    const context = canvas.getContext('2d');
    const colour = (name) => `rgb(${rgb(name).slice(0, 3).join(' ')})`;
    const shown = Math.max(filled, this.least * rate);
    const each = shown / width;
    context.fillStyle = colour('--wave');
    for (let x = 0; x < width && x * each < filled; x += 1) {
      let [low, high] = [0, 0];
      const to = Math.min(filled, Math.ceil((x + 1) * each));
      // Of a long one not every sample is looked at.
      const stride = Math.max(1, Math.floor(each / 64));
      for (let n = Math.floor(x * each); n < to; n += stride) {
        if (samples[n] < low) low = samples[n];
        if (samples[n] > high) high = samples[n];
      }
      context.fillRect(x, (height * (1 - high)) / 2, 1, Math.max(1, (height * (high - low)) / 2));
    }
    const y = (value) => (height - 4) * (1 - Math.max(0, Math.min(1, value))) + 2;
    context.lineWidth = devicePixelRatio;
    if (this.threshold !== undefined) {
      context.strokeStyle = colour('--muted');
      context.setLineDash([4 * devicePixelRatio, 4 * devicePixelRatio]);
      context.strokeRect(0, y(this.threshold), width, 0);
      context.setLineDash([]);
    }
    context.strokeStyle = colour('--accent');
    context.lineWidth = 2 * devicePixelRatio;
    context.beginPath();
    values.forEach((value, n) => context.lineTo(((n + 0.5) * this.size) / each, y(value)));
    context.stroke();
  }
}

/** Where values stay at or above a threshold: [first step, step after the last] each. */
export function segmentsOf(values, threshold) {
  const found = [];
  values.forEach((value, n) => {
    if (value < threshold) return;
    if (found.at(-1)?.[1] === n) found.at(-1)[1] = n + 1;
    else found.push([n, n + 1]);
  });
  return found;
}
