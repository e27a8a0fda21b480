// Score: the log-probability of each token of a given text.
import { bars, field, h } from './dom.js';
import { unary } from './connect.js';
import { answering } from './form.js';
import { modelInput } from './input.js';
import { example } from './examples.js';
import { TokenText, probabilityLegend } from './tokens.js';
import { alignment } from './alignment.js';

export function scoreView(model, signal) {
  const isAlone = model.task === 'TASK_GENERATE';
  const input = isAlone ? null : modelInput(model);
  const area = h('textarea', { rows: 3, spellcheck: 'false' });
  const sample = example(model);
  area.value = isAlone ? `${sample.prompt}${sample.text ?? 'But soft, what light through yonder window breaks?'}` : sample.target;
  const choices = h('textarea', { rows: 3, spellcheck: 'false' });
  const items = () => {
    const ways = choices.value.split('\n').filter(Boolean);
    return [{ text: area.value, ...(input ? input.input() : {}), ...(ways.length ? { choices: ways } : {}) }];
  };
  return answering({
    signal,
    fields: [input?.element, field(isAlone ? 'Text' : 'Answer to score', area),
      field('Ways to go on', choices, 'A line each, or none. With some, which of them follows is scored, and not the text itself.')].filter(Boolean),
    button: 'Score',
    hint: 'Each token is shaded by how probable the model finds it.',
    call: () => ['Score', { model: model.name, items: items() }],
    answer: async (own) => {
      const { scores } = await unary('Score', { model: model.name, items: items() }, own);
      if (scores[0].choices?.length) return likeliest(items()[0].choices, scores[0].choices);
      const { tokens = [], logProbability = 0 } = scores[0];
      const known = tokens.filter((token) => token.logProbability !== undefined).length;
      const text = new TokenText('Scored text');
      text.append(tokens);
      return [text.element,
        h('p', { class: 'status' }, `log-probability ${logProbability.toFixed(2)}, ${(-logProbability / Math.max(1, known)).toFixed(3)} nats a token over ${known}`),
        probabilityLegend(),
        model.task === 'TASK_SEQ2SEQ' && await alignment(model, items()[0].source, area.value, own)];
    },
  }).element;
}

/** The likeliest first, if it is one of them. */
function likeliest(ways, scored) {
  const rows = ways.map((text, n) => [text, scored[n].probability ?? 0, scored[n].logProbability ?? 0]).sort((one, other) => other[1] - one[1]);
  return [h('h3', {}, 'Which goes on likeliest'), bars(rows),
    h('p', { class: 'status' }, `log-probability of “${rows[0][0]}” ${rows[0][2].toFixed(2)}`)];
}
