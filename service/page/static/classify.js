// Classify: the labels as bars, and which words moved them.
import { bars, field, h, percent } from './dom.js';
import { unary } from './connect.js';
import { answering } from './form.js';
import { example } from './examples.js';
import { framesView } from './frames.js';
import { unitShade } from './tokens.js';

const SHOWN = 8;
const MOST_PARTS = 64;

/** The words of a text, or the characters of a single one: what may be left out of it. */
export function partsOf(text) {
  const words = text.match(/\s*\S+/g) ?? [];
  return words.length > 1 ? words : [...text];
}

export function classifyView(model, signal) {
  if (model.frames) return framesView(model, signal);
  const area = h('textarea', { rows: 4, spellcheck: 'false' });
  area.value = example(model).text;
  const texts = (text) => {
    const parts = partsOf(text);
    const without = parts.length > 1 && parts.length <= MOST_PARTS
      ? parts.map((_, n) => parts.filter((__, other) => other !== n).join('').trim() || ' ') : [];
    return { parts, texts: [text, ...without] };
  };
  return answering({
    signal,
    fields: field('Text', area),
    button: 'Classify',
    hint: 'Labels appear here.',
    call: () => ['Classify', { model: model.name, texts: [area.value] }],
    answer: async (own) => {
      const asked = texts(area.value);
      const { classifications } = await unary('Classify', { model: model.name, texts: asked.texts }, own);
      const [whole, ...without] = classifications;
      const { label, probability } = whole.labels[0];
      return [
        bars(whole.labels.slice(0, SHOWN).map((one) => [one.label, one.probability ?? 0])),
        whole.labels.length > SHOWN && h('p', { class: 'hint' }, `and ${whole.labels.length - SHOWN} more labels`),
        whole.unknownSymbols && h('p', { class: 'hint' }, `${whole.unknownSymbols} outside the vocabulary, read as unknown`),
        without.length > 0 && moved(asked.parts, without, label, probability ?? 0),
      ];
    },
  }).element;
}

function moved(parts, without, label, probability) {
  const changes = without.map(({ labels }) => probability - (labels.find((one) => one.label === label)?.probability ?? 0));
  const most = Math.max(...changes.map(Math.abs), 1e-9);
  return h('section', {}, h('h3', {}, 'What moved it'),
    h('p', { class: 'hint' }, `How the probability of “${label}” changes where a part is left out: each part once, through Classify. `,
      h('span', { class: 'u7' }, 'speaks for it'), ' ', h('span', { class: 'n7' }, 'against')),
    h('p', { class: 'parts' }, parts.map((part, n) => h('span', { class: unitShade(changes[n] / most), title: `${changes[n] < 0 ? '−' : '+'}${percent(Math.abs(changes[n]))}` }, part))));
}
