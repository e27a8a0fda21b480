// A text of tokens that grows while it is read: each shaded by its probability, or by one unit.
import { h, moved, percent } from './dom.js';

// Below each of these probabilities a token is shaded one step darker.
const STEPS = [0.5, 0.25, 0.1, 0.03, 0.01];
export const UNIT_STEPS = 10;

const shade = (logProbability) => {
  if (logProbability === undefined) return 'p0';
  const p = Math.exp(logProbability);
  return `p${STEPS.filter((step) => p < step).length}`;
};

/** value: -1 to 1. */
export const unitShade = (value) => {
  const step = Math.round(UNIT_STEPS * Math.max(-1, Math.min(1, value)));
  return step < 0 ? `n${-step}` : `u${step}`;
};

/** A text of which no character is invisible. */
export const visible = (text) => (text === '\n' ? '↵' : text === ' ' ? '␣' : text === '' ? '∅' : text);

let tip;

function showTip(span, children) {
  if (!tip) document.body.append(tip = h('div', { class: 'tip', role: 'tooltip', id: 'tip' }));
  tip.replaceChildren(...children);
  tip.hidden = false;
  const at = span.getBoundingClientRect();
  const size = tip.getBoundingClientRect();
  const left = Math.max(8, Math.min(at.left, innerWidth - size.width - 8));
  const below = at.bottom + 6;
  const top = below + size.height > innerHeight ? at.top - size.height - 6 : below;
  tip.style.left = `${left}px`;
  tip.style.top = `${Math.max(4, top)}px`;
}

export const hideTip = () => { if (tip) tip.hidden = true; };

/** onpick(position): a token was chosen by click or Enter. */
export class TokenText {
  constructor(label, onpick) {
    this.tokens = [];
    this.spans = [];
    this.shadeOf = null;
    this.shaded = 0;
    this.follow = true;
    this.cursor = -1;
    this.line = null;
    this.onpick = onpick;
    this.element = h('div', {
      class: 'tokens', tabindex: '0', role: 'group', 'aria-label': `${label}. Arrow keys show each token’s probability.`,
      onmouseover: (event) => this.#point(event.target), onmouseleave: () => { hideTip(); this.#mark(-1); },
      onblur: () => { hideTip(); this.#mark(-1); }, onkeydown: (event) => this.#key(event),
      onclick: (event) => { if (event.target.token) this.onpick?.(this.spans.indexOf(event.target)); },
      // As it is, and not with a line's end for each box.
      oncopy: (event) => {
        event.clipboardData.setData('text/plain', getSelection().getRangeAt(0).cloneContents().textContent);
        event.preventDefault();
      },
      onscroll: () => {
        const box = this.element;
        this.follow = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
      },
    });
  }

  get text() { return this.tokens.map((token) => token.text ?? '').join(''); }

  /** What the tokens say, to be compared. */
  said() { return this.tokens.map((token) => token.text ?? ''); }

  clear(before = '') {
    this.tokens = [];
    this.spans = [];
    this.shaded = 0;
    this.follow = true;
    this.line = null;
    this.element.replaceChildren();
    if (!before) return;
    this.#grow(h('span', { class: 'before' }, before), before);
  }

  /** A line of the text is a box of its own, so that what is long since there is not laid out again. */
  #grow(span, text) {
    if (!this.line) this.element.append(this.line = document.createElement('div'));
    this.line.append(span);
    if (text.endsWith('\n')) this.line = null;
  }

  /** Tokens of one frame; what is shown grows once. */
  append(tokens) {
    for (const token of tokens) {
      const span = document.createElement('span');
      span.textContent = token.text ?? '';
      span.token = token;
      if (token.text?.startsWith('\n')) span.dataset.end = '';
      span.className = this.shadeOf ? 'u0' : shade(token.logProbability);
      this.tokens.push(token);
      this.spans.push(span);
      this.#grow(span, span.textContent);
    }
    this.shadeMore();
    if (this.follow) this.element.scrollTop = this.element.scrollHeight;
  }

  /** shadeOf(position): a value from -1 to 1, undefined while it is not known; null for probability. */
  shadeBy(shadeOf) {
    this.shadeOf = shadeOf;
    this.shaded = 0;
    if (shadeOf) this.shadeMore();
    else this.spans.forEach((span, n) => { span.className = shade(this.tokens[n].logProbability); });
  }

  shadeMore() {
    if (!this.shadeOf) return;
    for (; this.shaded < this.spans.length; this.shaded += 1) {
      const value = this.shadeOf(this.shaded);
      if (value === undefined) return;
      this.spans[this.shaded].className = unitShade(value);
    }
  }

  #mark(position) {
    this.spans[this.cursor]?.classList.remove('at');
    this.cursor = position;
    this.spans[position]?.classList.add('at');
  }

  #point(span) {
    if (!span.token) return;
    this.#mark(this.spans.indexOf(span));
    const { token } = span;
    const own = [h('span', { class: 'name' }, visible(token.text ?? '')),
      token.logProbability === undefined ? '' : percent(Math.exp(token.logProbability))];
    const others = (token.top ?? []).map(({ text, logProbability }) => h('li', { class: text === token.text ? 'drawn' : '' },
      h('span', { class: 'name' }, visible(text ?? '')),
      h('span', { class: 'bar' }, h('span', { style: { width: `${100 * Math.exp(logProbability)}%` } })),
      h('span', { class: 'number' }, percent(Math.exp(logProbability)))));
    showTip(span, [h('p', {}, own), others.length ? h('ul', { class: 'bars' }, others) : '']);
  }

  #key(event) {
    if (event.key === 'Enter' && this.cursor >= 0) this.onpick?.(this.cursor);
    if (event.key === 'Escape') { hideTip(); this.#mark(-1); }
    const to = moved(event, this.cursor, this.spans.length);
    if (to === undefined) return;
    this.spans[to].scrollIntoView({ block: 'nearest' });
    this.#point(this.spans[to]);
  }
}

export function probabilityLegend() {
  const words = ['≥ 50 %', '≥ 25 %', '≥ 10 %', '≥ 3 %', '≥ 1 %', 'less'];
  return h('p', { class: 'legend' }, 'probability ', words.map((word, n) => h('span', { class: `p${n}` }, word)));
}
