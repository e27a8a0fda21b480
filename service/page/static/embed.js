// Embed: each line as a vector, and how alike the lines are by the cosines between them.
import { field, h, plural } from './dom.js';
import { unary } from './connect.js';
import { answering } from './form.js';
import { example } from './examples.js';
import { unitShade } from './tokens.js';

const MOST_LINES = 16;

export function embedView(model, signal) {
  const area = h('textarea', { rows: 6, spellcheck: 'false', autocomplete: 'off' });
  area.value = example(model).lines.join('\n');
  const lines = () => area.value.split('\n').filter(Boolean).slice(0, MOST_LINES);
  const message = () => ({ model: model.name, texts: lines() });
  return answering({
    signal,
    fields: field('Texts', area, `A line each, ${MOST_LINES} at most.`),
    button: 'Compare',
    hint: 'How alike the lines are appears here.',
    call: () => ['Embed', message()],
    answer: async (own) => {
      const asked = message();
      const { embeddings } = await unary('Embed', asked, own);
      return similarities(asked.texts, embeddings.map(({ values }) => values));
    },
  }).element;
}

/** vectors: of length 1, so that a product is a cosine. */
function similarities(texts, vectors) {
  const cosine = (one, other) => one.reduce((sum, value, n) => sum + value * other[n], 0);
  const matrix = vectors.map((one) => vectors.map((other) => cosine(one, other)));
  return [h('h3', {}, 'How alike'),
    h('p', { class: 'hint' }, `Cosines between the states that the lines leave, ${plural(vectors[0].length, 'number')} each: 1 is the same direction, 0 none in common.`),
    h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Cosine similarities' }, h('table', { class: 'similarity' },
      h('thead', {}, h('tr', {}, h('td', {}), texts.map((_, n) => h('th', { scope: 'col' }, String(n + 1))))),
      h('tbody', {}, matrix.map((row, n) => h('tr', {}, h('th', { scope: 'row', title: texts[n] }, `${n + 1}. ${texts[n]}`),
        row.map((value) => h('td', { class: unitShade(value) }, value.toFixed(2))))))))];
}
