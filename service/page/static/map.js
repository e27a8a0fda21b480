// The units of one tensor as cells of a picture: warm above zero, cold below.
import { h } from './dom.js';

const SHADES = 128;

/** Columns of a picture of so many units: about twice as wide as high, and a power of two. */
export const columnsOf = (units) => 2 ** Math.round(Math.log2(Math.sqrt(2 * units)));

const palettes = new Map();
addEventListener('themechange', () => palettes.clear());
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', () => dispatchEvent(new Event('themechange')));

/** Of a colour of style.css: red, green, blue, alpha, 0 to 255 each. */
export function rgb(name) {
  const probe = h('span', { style: { color: `var(${name})` } });
  document.body.append(probe);
  const canvas = document.createElement('canvas');
  canvas.width = canvas.height = 1;
  const context = canvas.getContext('2d');
  context.fillStyle = getComputedStyle(probe).color;
  context.fillRect(0, 0, 1, 1);
  probe.remove();
  return context.getImageData(0, 0, 1, 1).data;
}

/** Pixels from one colour of style.css to another, as an image holds them; until the theme changes. */
export function ramp(from, to, steps) {
  const key = `${from} ${to} ${steps}`;
  if (palettes.has(key)) return palettes.get(key);
  const [first, last] = [from, to].map(rgb);
  const found = new Uint32Array(steps);
  const bytes = new Uint8Array(found.buffer);
  for (let n = 0; n < steps; n += 1) {
    for (let channel = 0; channel < 3; channel += 1) {
      bytes[4 * n + channel] = first[channel] + ((last[channel] - first[channel]) * n) / (steps - 1);
    }
    bytes[4 * n + 3] = 255;
  }
  palettes.set(key, found);
  return found;
}

/** name: of the tensor. squash: of a value into -1 … 1. onpick(unit). */
export class UnitMap {
  constructor(name, label, units, squash, onpick) {
    this.name = name;
    this.units = units;
    this.squash = squash;
    const columns = this.columns = columnsOf(units);
    const rows = Math.ceil(units / columns);
    this.canvas = h('canvas', {
      width: columns, height: rows, tabindex: '0', role: 'img', 'data-tensor': name,
      'aria-label': `${label}: ${units} units. Arrow keys choose one.`,
      onclick: (event) => onpick(this.#at(event)),
      onpointermove: (event) => this.#say(this.#at(event)), onpointerleave: () => this.#say(this.chosen),
      onkeydown: (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key];
        if (step === undefined) return;
        event.preventDefault();
        onpick(Math.max(0, Math.min(units - 1, (this.chosen ?? -step) + step)));
      },
    });
    this.canvas.style.aspectRatio = `${columns} / ${rows}`;
    this.marker = h('span', { class: 'marker', hidden: true, 'aria-hidden': 'true' });
    this.marker.style.width = `${100 / columns}%`;
    this.marker.style.height = `${100 / rows}%`;
    this.rows = rows;
    this.caption = h('span', { class: 'value' });
    this.element = h('figure', { class: 'map' },
      h('figcaption', {}, h('span', {}, label), this.caption), h('div', { class: 'cells' }, this.canvas, this.marker));
    this.context = this.canvas.getContext('2d');
    this.image = this.context.createImageData(columns, rows);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.values = null;
    this.draw(new Float32Array(units));
    this.values = null;
  }

  draw(values) {
    this.values = values;
    const [cold, warm] = [ramp('--blank', '--cold', SHADES), ramp('--blank', '--warm', SHADES)];
    for (let unit = 0; unit < this.units; unit += 1) {
      const share = this.squash(values[unit]);
      this.pixels[unit] = (share < 0 ? cold : warm)[Math.round(Math.abs(share) * (SHADES - 1))];
    }
    this.context.putImageData(this.image, 0, 0);
    if (this.chosen !== undefined) this.#say(this.chosen);
  }

  /** unit: undefined for none. */
  choose(unit) {
    this.chosen = unit;
    this.marker.hidden = unit === undefined;
    if (unit !== undefined) {
      this.marker.style.left = `${(100 * (unit % this.columns)) / this.columns}%`;
      this.marker.style.top = `${(100 * Math.floor(unit / this.columns)) / this.rows}%`;
    }
    this.#say(unit);
  }

  #say(unit) {
    if (unit === undefined || unit >= this.units) this.caption.textContent = '';
    else this.caption.textContent = `unit ${unit}${this.values ? `: ${this.values[unit].toFixed(3)}` : ''}`;
  }

  #at(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.min(this.columns - 1, Math.max(0, Math.floor(((event.clientX - box.left) / box.width) * this.columns)));
    const row = Math.min(this.rows - 1, Math.max(0, Math.floor(((event.clientY - box.top) / box.height) * this.rows)));
    return Math.min(this.units - 1, row * this.columns + column);
  }
}
