// Labelled parts in a line, a box each: coloured by the label, or by one unit of the state.
import { h, moved, percent } from './dom.js';
import { unitShade } from './tokens.js';

const HUES = 12;

/** The same label has the same hue in every text. */
function hue(label) {
  let sum = 0;
  for (const letter of label) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return sum % HUES;
}

export const labelled = ({ text, label, probability }) => h('span', { class: `tag h${hue(label)}`, title: probability === undefined ? label : `${label}, ${percent(probability)}` },
  h('span', {}, text), h('small', {}, label));

/** Grows as answers come. tokens: { text, label, probability }. onpick(position): by click or arrow keys. */
export class LabelLine {
  constructor(label, onpick) {
    this.onpick = onpick;
    this.shadeOf = null;
    this.element = h('p', {
      class: 'tags', role: 'group', tabindex: '0', 'aria-live': 'polite', 'aria-label': `${label}${onpick ? '. Arrow keys choose one.' : ''}`,
      onclick: (event) => this.#pick(this.spans.indexOf(event.target.closest('.tag'))), onkeydown: (event) => this.#key(event),
    });
    this.clear();
  }

  clear() {
    this.tokens = [];
    this.spans = [];
    this.shaded = 0;
    this.chosen = -1;
    this.element.replaceChildren();
  }

  append(tokens) {
    const spans = tokens.map(labelled);
    this.tokens.push(...tokens);
    this.spans.push(...spans);
    this.element.append(...spans);
    this.shadeMore();
  }

  /** What the parts say, to be compared. */
  said() { return this.tokens.map(({ label }) => label); }

  /** shadeOf(position): a value from -1 to 1, undefined while it is not known; null for labels. */
  shadeBy(shadeOf) {
    this.shadeOf = shadeOf;
    this.shaded = 0;
    if (shadeOf) this.shadeMore();
    else this.spans.forEach((span, n) => this.#colour(n, `h${hue(this.tokens[n].label)}`));
  }

  shadeMore() {
    if (!this.shadeOf) return;
    for (; this.shaded < this.spans.length; this.shaded += 1) {
      const value = this.shadeOf(this.shaded);
      if (value === undefined) return;
      this.#colour(this.shaded, unitShade(value));
    }
  }

  #colour(position, shade) {
    this.spans[position].className = `tag ${shade}${position === this.chosen ? ' at' : ''}`;
  }

  #pick(position) {
    if (position < 0 || !this.onpick) return;
    this.spans[this.chosen]?.classList.remove('at');
    this.chosen = position;
    this.spans[position].classList.add('at');
    this.onpick(position);
  }

  #key(event) {
    const to = this.onpick ? moved(event, this.chosen, this.spans.length) : undefined;
    if (to !== undefined) this.#pick(to);
  }
}
