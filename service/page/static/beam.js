// Beam search: the hypotheses as the tree of what they share.
import { field, h } from './dom.js';
import { answering } from './form.js';
import { modelInput } from './input.js';
import { example } from './examples.js';
import { readTokens } from './reading.js';

/** Nodes of { text, logProbability, end, next }: one where hypotheses part. */
export function treeOf(hypotheses) {
  const root = [];
  for (const { tokens, end } of hypotheses) {
    let level = root;
    let node;
    for (const token of tokens) {
      node = level.find((other) => other.id === (token.id ?? 0));
      if (!node) level.push(node = { id: token.id ?? 0, text: token.text ?? '', sum: token.logProbability ?? 0, next: [] });
      level = node.next;
    }
    if (node) node.end = end;
  }
  return root.map(joined);
}

function joined(node) {
  let { text, sum, next, end } = node;
  while (next.length === 1 && !end) {
    text += next[0].text;
    sum += next[0].sum;
    ({ end, next } = next[0]);
  }
  return { text, sum, end, next: next.map(joined) };
}

const shown = (text) => text.replaceAll('\n', '↵\n');

function branch({ text, sum, end, next }) {
  return h('li', {}, h('span', { class: 'node', title: `log-probability of this part ${sum.toFixed(2)}` }, shown(text)),
    end && h('span', { class: 'rank' }, `${end.rank}. score ${end.score.toFixed(3)}`),
    next.length > 0 && h('ul', {}, next.map(branch)));
}

export function beamView(model, signal) {
  const input = modelInput(model);
  const most = model.limits?.output_tokens;
  const width = h('input', { type: 'number', min: 1, max: 16, value: 5 });
  const penalty = h('input', { type: 'number', min: -10, max: 10, step: 0.1, placeholder: 'the model’s' });
  const length = h('input', { type: 'number', min: 1, max: most, value: Math.min(model.task === 'TASK_GENERATE' ? 60 : most, most) });
  const request = () => ({
    model: model.name, ...input.input(), maxTokens: Number(length.value), logProbabilities: true,
    beam: { width: Number(width.value), best: Number(width.value), ...(penalty.value && { lengthPenalty: Number(penalty.value) }) },
  });
  const view = answering({
    signal,
    fields: [input.element, h('div', { class: 'pair' }, field('Width', width), field('Tokens at most', length)),
      field('Length penalty', penalty, 'A hypothesis is worth its log-probability / tokens ^ penalty.')],
    button: 'Search',
    hint: 'A beam search answers as a whole: its hypotheses appear here, as the tree of what they share.',
    call: () => ['Generate', request()],
    answer: async (own) => {
      const samples = new Map();
      const last = await readTokens(request(), own, {
        tokens: (tokens) => tokens.forEach((token) => {
          const sample = token.sample ?? 0;
          samples.set(sample, [...(samples.get(sample) ?? []), token]);
        }),
      });
      const hypotheses = (last.ends ?? []).map((end, n) => ({
        tokens: samples.get(end.sample ?? 0) ?? [], end: { rank: n + 1, score: end.score ?? 0 },
      }));
      return h('ul', { class: 'tree' }, treeOf(hypotheses).map(branch));
    },
  });
  return view.element;
}
