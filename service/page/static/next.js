// Next token: the likeliest tokens to come, as Score answers them; nothing is drawn.
import { bars, field, h, percent } from './dom.js';
import { unary } from './connect.js';
import { answering } from './form.js';
import { modelInput } from './input.js';
import { example } from './examples.js';
import { visible } from './tokens.js';

const MOST = 20;

export function nextView(model, signal) {
  const isAlone = model.task === 'TASK_GENERATE';
  const input = isAlone ? null : modelInput(model);
  const area = h('textarea', { rows: 3, spellcheck: 'false', autocomplete: 'off' });
  area.value = isAlone ? example(model).prompt : '';
  const count = h('input', { type: 'number', min: 1, max: MOST, value: MOST });
  const message = () => ({ model: model.name, items: [{ text: area.value, ...input?.input(), topNextTokens: Number(count.value) }] });
  const view = answering({
    signal,
    fields: [input?.element, field(isAlone ? 'Prompt' : 'Written so far', area, isAlone ? '' : 'Empty for the first token.'),
      field('Tokens shown', count)].filter(Boolean),
    button: 'Look ahead',
    hint: 'The likeliest next tokens appear here.',
    call: () => ['Score', message()],
    answer: async (own) => {
      const { scores: [{ nextTokens = [] }] } = await unary('Score', message(), own);
      const rows = nextTokens.map(({ text = '', logProbability = 0 }) => [visible(text), Math.exp(logProbability)]);
      const others = Math.max(0, 1 - rows.reduce((sum, [, probability]) => sum + probability, 0));
      const writeOn = (n) => {
        area.value += nextTokens[n].text ?? '';
        view.update();
        view.run();
      };
      return [bars(rows, (_, n) => writeOn(n)),
        h('p', { class: 'status' }, `All other tokens together: ${percent(others)}. A click on one writes it, and looks ahead from there.`)];
    },
  });
  return view.element;
}
