// Where a model looks while it writes: a row for each token, a column for each token of the source.
import { h, percent } from './dom.js';
import { ramp } from './map.js';

const SHADES = 256;
// Rows of the picture at first; it doubles when they are used up.
const ROWS = 32;
const NEAR_END_PX = 40;

const word = (text) => text?.trim() || '␣';

/** places: numbers that come beside a token, at least one for each token of the source. */
export class AttentionMap {
  constructor(places, signal) {
    this.places = places;
    this.canvas = h('canvas', {
      tabindex: '0', role: 'img', 'data-tensor': 'attention',
      onclick: (event) => this.#choose(this.#at(event)), onpointermove: (event) => this.#say(this.#at(event)),
      onpointerleave: () => this.#say(this.chosen), onkeydown: (event) => this.#key(event),
    });
    this.context = this.canvas.getContext('2d');
    this.marker = h('span', { class: 'marker', hidden: true, 'aria-hidden': 'true' });
    this.reads = h('div', { class: 'reads', 'aria-hidden': 'true' });
    this.writes = h('div', { class: 'writes', 'aria-hidden': 'true' });
    this.cells = h('div', { class: 'cells' }, this.canvas, this.marker);
    this.box = h('div', {
      class: 'looking', onscroll: () => {
        this.follow = this.box.scrollHeight - this.box.scrollTop - this.box.clientHeight < NEAR_END_PX;
      },
    }, h('div', { class: 'sheet' }, h('span', { class: 'corner' }), this.reads, this.writes, this.cells));
    this.caption = h('p', { class: 'status', role: 'status' });
    this.element = h('section', { class: 'attention' },
      h('div', { class: 'row' }, h('h3', {}, 'Where it looks'), h('span', { class: 'grow' }),
        h('span', { class: 'scale ramp' }, '0 %', h('span', {}), '100 %')),
      this.caption, this.box);
    this.clear();
    addEventListener('themechange', () => this.#draw(0), { signal });
  }

  /** A new stream, of which neither source nor token is known. */
  clear() {
    this.source = [];
    this.tokens = [];
    this.weights = [];
    this.follow = true;
    this.chosen = undefined;
    this.reads.replaceChildren();
    this.writes.replaceChildren();
    this.#size(ROWS);
    this.#say();
  }

  /** tokens: of the source, as the model reads them. */
  read(tokens) {
    this.source = tokens.slice(0, this.places).map((token) => word(token.text));
    this.reads.replaceChildren(...this.source.map((text) => h('span', {}, text)));
    this.#size(ROWS);
    this.#say(this.chosen);
  }

  /** Tokens of one frame. weights: of each a Float32Array of all places, undefined for none. */
  append(tokens, weights) {
    if (!this.source.length && weights[0]) this.#number(weights[0]);
    const from = this.tokens.length;
    tokens.forEach((token, n) => {
      this.tokens.push(word(token.text));
      this.weights.push(weights[n]);
    });
    this.writes.append(...tokens.map((token) => h('span', {}, word(token.text))));
    if (this.tokens.length > this.canvas.height) this.#size(2 ** Math.ceil(Math.log2(this.tokens.length)));
    else this.#draw(from);
    if (this.chosen === undefined) this.#name();
    if (this.follow) this.box.scrollTop = this.box.scrollHeight;
  }

  /** The places of a source that nothing is known of but where it ends: those that are looked at. */
  #number(weights) {
    this.read(Array.from({ length: weights.findLastIndex((weight) => weight > 0) + 1 }, (_, n) => ({ text: String(n + 1) })));
  }

  /** The row of a token of the text. */
  at(row) {
    const weights = this.weights[row];
    if (weights) this.#choose({ row, column: weights.indexOf(Math.max(...weights)) });
  }

  #size(rows) {
    this.canvas.width = Math.max(1, this.source.length);
    this.canvas.height = rows;
    this.canvas.style.height = `calc(${rows} * var(--cell))`;
    this.reads.parentElement.style.setProperty('--columns', this.source.length);
    this.#draw(0);
  }

  #draw(from) {
    const [columns, rows] = [this.source.length, this.tokens.length - from];
    this.cells.style.height = `calc(${this.tokens.length} * var(--cell))`;
    if (!columns || rows < 1) return;
    const shades = ramp('--blank', '--accent', SHADES);
    const image = this.context.createImageData(columns, rows);
    const pixels = new Uint32Array(image.data.buffer);
    for (let row = 0; row < rows; row += 1) {
      const weights = this.weights[from + row];
      for (let column = 0; column < columns; column += 1) {
        pixels[row * columns + column] = shades[Math.round((SHADES - 1) * Math.min(1, weights?.[column] ?? 0))];
      }
    }
    this.context.putImageData(image, 0, from);
  }

  #choose(cell) {
    this.chosen = cell;
    this.marker.hidden = !cell;
    if (cell) {
      this.marker.style.left = `calc(${cell.column} * var(--cell))`;
      this.marker.style.top = `calc(${cell.row} * var(--cell))`;
      this.marker.scrollIntoView({ block: 'nearest', inline: 'nearest' });
    }
    this.#say(cell);
  }

  #say(cell) {
    for (const [labels, n] of [[this.reads, cell?.column], [this.writes, cell?.row]]) {
      labels.querySelector('.at')?.classList.remove('at');
      labels.children[n]?.classList.add('at');
    }
    const weights = cell && this.weights[cell.row];
    this.caption.textContent = weights
      ? `“${this.tokens[cell.row]}” looks at “${this.source[cell.column]}”: ${percent(weights[cell.column])}`
      : 'A row for each token that is written: how much it looks at each token of the source.';
    this.#name();
  }

  #name() {
    this.canvas.setAttribute('aria-label', `Attention: ${this.tokens.length} tokens written, ${this.source.length} read. Arrow keys show each weight.`);
  }

  #at(event) {
    if (!this.tokens.length || !this.source.length) return undefined;
    const box = this.cells.getBoundingClientRect();
    const of = (offset, size, count) => Math.max(0, Math.min(count - 1, Math.floor((offset / size) * count)));
    return {
      row: of(event.clientY - box.top, box.height, this.tokens.length),
      column: of(event.clientX - box.left, box.width, this.source.length),
    };
  }

  #key(event) {
    const [down, right] = { ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key] ?? [];
    if (event.key === 'Escape') this.#choose(undefined);
    if (down === undefined || !this.tokens.length || !this.source.length) return;
    event.preventDefault();
    const { row, column } = this.chosen ?? { row: -Math.abs(down), column: -Math.abs(right) };
    this.#choose({
      row: Math.max(0, Math.min(this.tokens.length - 1, row + down)),
      column: Math.max(0, Math.min(this.source.length - 1, column + right)),
    });
  }
}
