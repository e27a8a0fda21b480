// A waveform with a line of numbers over it, one for each step; one unit of a state may colour it.
import { h, moved } from './dom.js';
import { rgb } from './map.js';

const HEIGHT = 200;

const STRONGEST = 0.6;

/** rate: samples a second. size: samples of a step. threshold: a line across. onpick(position): of a
 *  frame, by click or arrow keys. label: what it shows. */
export class Wave {
  constructor(rate, size, threshold, seconds, signal, onpick, label = 'Waveform, and the model’s output over it') {
    Object.assign(this, { rate, size, threshold, least: seconds });
    this.canvas = h('canvas', {
      class: 'wave', role: 'img', tabindex: '0', 'aria-label': `${label}${onpick ? '. Arrow keys choose a frame.' : ''}`,
      onclick: (event) => this.#pick(this.#at(event)), onkeydown: (event) => this.#key(event),
    });
    this.onpick = onpick;
    this.shadeOf = null;
    this.clear();
    new ResizeObserver(() => this.change()).observe(this.canvas);
    addEventListener('themechange', () => this.change(), { signal });
  }

  clear(samples = new Float32Array(0)) {
    this.samples = samples;
    this.filled = samples.length;
    this.values = [];
    this.tokens = [];
    this.chosen = -1;
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

  get element() { return this.canvas; }

  /** Frames that were answered: { values }, one for each of its steps. `from`: its first step. */
  append(tokens) {
    for (const token of tokens) {
      token.from = this.values.length;
      this.tokens.push(token);
      this.values.push(...token.values);
    }
    this.change();
  }

  /** What the frames say, to be compared. */
  said() { return this.tokens.map(({ values }) => String(values)); }

  /** shadeOf(position): of a frame, a value from -1 to 1, undefined while it is not known; null for none. */
  shadeBy(shadeOf) {
    this.shadeOf = shadeOf;
    this.change();
  }

  shadeMore() { this.change(); }

  /** Steps over the whole width. */
  get across() { return Math.max(this.filled, this.least * this.rate) / this.size; }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const step = ((event.clientX - box.left) / box.width) * this.across;
    return this.tokens.findIndex(({ from, values }) => step < from + values.length);
  }

  #pick(position) {
    if (!this.onpick || position < 0) return;
    this.chosen = position;
    this.change();
    this.onpick(position);
  }

  #key(event) {
    const to = this.onpick ? moved(event, this.chosen, this.tokens.length) : undefined;
    if (to !== undefined) this.#pick(to);
  }

  change() {
    this.frame ||= requestAnimationFrame(() => { this.frame = 0; this.#draw(); });
  }

  #draw() {
    const { canvas, filled, samples, values } = this;
    const width = canvas.width = Math.max(1, Math.round(canvas.clientWidth * devicePixelRatio));
    const height = canvas.height = Math.round(HEIGHT * devicePixelRatio);
    const context = canvas.getContext('2d');
    const colour = (name, share = 1) => `rgb(${rgb(name).slice(0, 3).join(' ')} / ${share})`;
    const each = (this.across * this.size) / width;
    this.#shade(context, colour, height, each);
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

  /** Each frame's stretch in the colour of the unit; a frame around the chosen one. */
  #shade(context, colour, height, each) {
    const [warm, cold] = ['--warm', '--cold'].map((name) => colour(name));
    this.tokens.forEach(({ from, values }, n) => {
      const value = this.shadeOf?.(n);
      const stretch = [(from * this.size) / each, 0, (values.length * this.size) / each, height];
      if (value !== undefined) {
        context.globalAlpha = STRONGEST * Math.abs(value);
        context.fillStyle = value < 0 ? cold : warm;
        context.fillRect(...stretch);
      }
      if (n !== this.chosen) return;
      context.globalAlpha = 1;
      context.lineWidth = 2 * devicePixelRatio;
      context.strokeStyle = colour('--ink');
      context.strokeRect(...stretch);
    });
    context.globalAlpha = 1;
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
