// What the text is held to: one of some choices, an expression, or a JSON schema.
import { field, h } from './dom.js';

const KINDS = {
  choices: ['One of these', 'A line each. The text is one of them.', 'be\ngo\nsay', (text) => ({ choices: { texts: text.split('\n').filter(Boolean) } })],
  regex: ['An expression', 'The text matches it as a whole; no looking around, no backreferences.', '[A-Z][a-z]+( [a-z]+)*[.!]', (text) => ({ regex: text })],
  json: ['A JSON schema', 'The text is JSON that satisfies it, of a model that can write JSON.', '{"enum": [true, false]}', (text) => ({ jsonSchema: text })],
};

/** element; constraint(): its part of a request. */
export function constraintField() {
  const texts = Object.fromEntries(Object.entries(KINDS).map(([name, [, , sample]]) => [name, sample]));
  const kind = h('select', {}, h('option', { value: '' }, 'Nothing: free text'),
    Object.entries(KINDS).map(([name, [label]]) => h('option', { value: name }, label)));
  const area = h('textarea', { rows: 3, spellcheck: 'false', autocomplete: 'off', oninput: () => { texts[kind.value] = area.value; } });
  const form = field('Form', area, ' ');
  const hint = form.querySelector('.hint');
  const show = () => {
    form.hidden = !kind.value;
    if (!kind.value) return;
    area.value = texts[kind.value];
    [form.querySelector('label').textContent, hint.textContent] = KINDS[kind.value];
  };
  kind.addEventListener('change', show);
  show();
  return {
    element: h('details', {}, h('summary', {}, 'Hold the text to a form'), field('Held to', kind, 'Nothing is drawn but what can still become such a text.'), form),
    constraint: () => (kind.value ? { constraint: KINDS[kind.value][3](area.value) } : {}),
  };
}
