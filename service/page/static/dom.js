// Elements. Whatever comes from the server becomes a text node; nothing here parses markup.

const SVG = 'http://www.w3.org/2000/svg';

/** An element with properties: `class`, `on…` listeners, `style` by property, else attributes. */
export function h(tag, properties = {}, ...children) {
  return filled(document.createElement(tag), properties, children);
}

/** Likewise of SVG. */
export function s(tag, properties = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), properties, children);
}

function filled(element, properties, children) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'style') setStyle(element, value);
    else if (value === true) element.setAttribute(name, '');
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter((child) => child != null && child !== false));
  return element;
}

function setStyle(element, style) {
  for (const [name, value] of Object.entries(style)) element.style.setProperty(name, value);
}

export function show(parent, ...children) {
  parent.replaceChildren(...children.flat().filter(Boolean));
}

let ids = 0;

/** A label above an input, and a hint below it. */
export function field(label, input, hint = '') {
  input.id ||= `f${++ids}`;
  const described = hint ? h('p', { class: 'hint', id: `${input.id}-hint` }, hint) : null;
  if (described) input.setAttribute('aria-describedby', described.id);
  return h('div', { class: 'field' }, h('label', { for: input.id }, label), input, described);
}

/** `tabs`: [name, text] each. `choose` is called with a name, and at once with the first. */
export function choices(label, tabs, choose, chosen = tabs[0][0]) {
  const buttons = tabs.map(([name, text]) => h('button', { type: 'button', onclick: () => set(name) }, text));
  const group = h('div', { class: 'choices', role: 'group', 'aria-label': label }, buttons);
  const set = (name) => {
    buttons.forEach((button, n) => button.setAttribute('aria-pressed', String(tabs[n][0] === name)));
    choose(name);
  };
  set(chosen);
  return group;
}

/** Where an arrow key, Home or End leads to from `at` among `count` places in a line; undefined for
 *  other keys, and where there is no place. */
export function moved(event, at, count) {
  const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
  if (step === undefined || !count) return undefined;
  event.preventDefault();
  return Math.max(0, Math.min(count - 1, at + step));
}

/** What a call that was refused says, in words. */
export function refusal(error) {
  return h('div', { class: 'refusal', role: 'alert' },
    h('strong', {}, error.title ?? 'The call failed'), h('p', {}, error.message));
}

export const plural = (count, noun) => `${count.toLocaleString('en')} ${noun}${count === 1 ? '' : 's'}`;

export const percent = (p) => `${(100 * p).toFixed(p > 0.0995 && p < 0.9995 ? 0 : 1)} %`;

/** Bars of probabilities: [text, probability] each. `onpick(text, row)` makes them buttons. */
export function bars(rows, onpick) {
  return h('ul', { class: 'bars' }, rows.map(([text, probability], row) => h('li', {},
    onpick ? h('button', { type: 'button', class: 'name link', onclick: () => onpick(text, row) }, text)
      : h('span', { class: 'name' }, text),
    h('span', { class: 'bar', 'aria-hidden': 'true' },
      h('span', { style: { width: `${100 * probability}%` } })),
    h('span', { class: 'number' }, percent(probability)))));
}
