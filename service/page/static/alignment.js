// Which part of a source each token of an answer hangs on: how much less probable it becomes where
// the part is left out. One call of Score, and no need of the model's own attention.
import { h, percent } from './dom.js';
import { unary } from './connect.js';
import { partsOf } from './classify.js';

const MOST_PARTS = 48;
// A loss of so much is shown as all there is.
const MOST_NATS = 4;

export async function alignment(model, source, text, signal) {
  const parts = partsOf(source);
  if (parts.length < 2 || parts.length > MOST_PARTS || !text.trim()) return null;
  const sources = [source, ...parts.map((_, n) => parts.filter((__, other) => other !== n).join('').trim())];
  const items = sources.map((one) => ({ source: one, text }));
  const { scores } = await unary('Score', { model: model.name, items }, signal);
  const [whole, ...without] = scores.map((score) => score.tokens);
  const cell = (part, n) => {
    const [has, lacks] = [whole[n].logProbability, without[part][n].logProbability];
    const share = Math.max(0, Math.min(1, (has - lacks) / MOST_NATS));
    const title = `${percent(Math.exp(has))} with “${parts[part].trim()}”, ${percent(Math.exp(lacks))} without`;
    return h('td', { class: `u${Math.round(10 * share)}`, title });
  };
  return h('section', {}, h('h3', {}, 'What hangs on what'),
    h('p', { class: 'hint' }, 'Darker: the token above is less probable where the part on the left is left out of the source.'),
    h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Alignment' }, h('table', { class: 'alignment' },
      h('thead', {}, h('tr', {}, h('td'), whole.map((token) => h('th', { scope: 'col' }, h('span', {}, token.text?.trim() || '∎'))))),
      h('tbody', {}, parts.map((part, row) => h('tr', {}, h('th', { scope: 'row' }, part.trim() || '␣'), whole.map((_, n) => cell(row, n))))))));
}
