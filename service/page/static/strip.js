// Numbers over time: a column for each step, a row for each number; warm above zero, cold below.
import { h } from './dom.js';
import { ramp } from './map.js';

const SHADES = 128;
const [ROW_PX, LEAST_PX, MOST_PX] = [8, 16, 192];
// Of more, pictures are wider than browsers draw.
const MOST_STEPS = 16_384;

/** name: of the output that it shows. rows: its numbers in each step. */
export class Strip {
  constructor(name, rows, signal) {
    this.name = name;
    this.rows = rows;
    this.canvas = h('canvas', {
      height: rows, tabindex: '0', role: 'img', 'data-output': name,
      onpointermove: (event) => this.#say(this.#at(event)), onpointerleave: () => this.#say(), onkeydown: (event) => this.#key(event),
    });
    this.canvas.style.height = `${Math.max(LEAST_PX, Math.min(MOST_PX, ROW_PX * rows))}px`;
    this.context = this.canvas.getContext('2d');
    this.caption = h('span', { class: 'value' });
    this.element = h('figure', { class: 'strip' }, h('figcaption', {}, h('span', {}, name), this.caption), h('div', { class: 'cells' }, this.canvas));
    this.clear();
    addEventListener('themechange', () => this.#draw(0), { signal });
  }

  clear() {
    this.steps = [];
    this.chosen = { step: -1, row: 0 };
    this.#say();
    this.#size(64);
    this.#name();
  }

  /** values: of so many steps, one after the other. across: steps over the whole width. */
  append(values, steps, across) {
    const from = this.steps.length;
    for (let n = 0; n < steps && this.steps.length < MOST_STEPS; n += 1) this.steps.push(values.slice(n * this.rows, (n + 1) * this.rows).map(Number));
    if (this.steps.length > this.canvas.width) this.#size(2 ** Math.ceil(Math.log2(this.steps.length)));
    else this.#draw(from);
    this.canvas.style.width = `${(100 * this.canvas.width) / Math.max(1, across)}%`;
    this.#name();
  }

  #name() {
    this.canvas.setAttribute('aria-label', `${this.name}: ${this.rows} over ${this.steps.length} steps. Arrow keys show each value.`);
  }

  #size(columns) {
    this.canvas.width = columns;
    this.#draw(0);
  }

  #draw(from) {
    const columns = this.steps.length - from;
    if (columns < 1) return;
    const [cold, warm] = [ramp('--blank', '--cold', SHADES), ramp('--blank', '--warm', SHADES)];
    const image = this.context.createImageData(columns, this.rows);
    const pixels = new Uint32Array(image.data.buffer);
    for (let column = 0; column < columns; column += 1) {
      this.steps[from + column].forEach((value, row) => {
        pixels[row * columns + column] = (value < 0 ? cold : warm)[Math.round((SHADES - 1) * Math.min(1, Math.abs(value)))];
      });
    }
    this.context.putImageData(image, from, 0);
  }

  #say(cell) {
    const value = cell && this.steps[cell.step]?.[cell.row];
    this.caption.textContent = value === undefined ? '' : `step ${cell.step + 1}, ${cell.row}: ${value.toFixed(3)}`;
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const place = (offset, size, count) => Math.max(0, Math.min(count - 1, Math.floor((offset / size) * count)));
    return { step: place(event.clientX - box.left, box.width, this.canvas.width), row: place(event.clientY - box.top, box.height, this.rows) };
  }

  #key(event) {
    const [right, down] = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key] ?? [];
    if (right === undefined || !this.steps.length) return;
    event.preventDefault();
    this.chosen = {
      step: Math.max(0, Math.min(this.steps.length - 1, this.chosen.step + right)),
      row: Math.max(0, Math.min(this.rows - 1, this.chosen.row + down)),
    };
    this.#say(this.chosen);
  }
}

/** A strip for each output that has several numbers a step, and for each after the first. */
export class Strips {
  constructor(outputs, signal) {
    this.strips = outputs.map(({ name, rows }, n) => (n || rows > 1 ? new Strip(name, rows, signal) : null));
    const shown = this.strips.filter(Boolean);
    this.element = shown.length ? h('section', { class: 'strips' }, h('h3', {}, 'All that it answers'),
      h('p', { class: 'hint' }, 'A column for each step, a row for each number: warm above zero, cold below, full from 1 on.'), shown.map((strip) => strip.element)) : null;
  }

  clear() { this.strips.forEach((strip) => strip?.clear()); }

  append(outputs, steps, across) { this.strips.forEach((strip, n) => strip?.append(outputs[n] ?? [], steps, across)); }
}
