// The model's card: what it is, what was measured, on which data, under which licence.
import { h } from './dom.js';

const KINDS = {
  TASK_CLASSIFY: 'classifies texts', TASK_GENERATE: 'goes on from a prompt', TASK_SEQ2SEQ: 'writes from a source',
  TASK_TAG: 'labels each token', TASK_FILL: 'fills in blanks', TASK_VECTOR_TO_SEQUENCE: 'writes from a vector',
  TASK_FORECAST: 'forecasts series', TASK_STEP: 'answers numbers as they come',
};
const BATCHING = {
  BATCHING_EXACT: 'exact: the same bits alone and in any batch', BATCHING_INEXACT: 'inexact: a row’s last bits follow its batch',
  BATCHING_NONE: 'none: rows run one after the other, with the bits of each alone',
};
export const kindOf = (model) => (model.frames ? 'classifies numbers in time' : KINDS[model.task] ?? 'of another task');

const number = (value) => (Math.abs(value) >= 1000 ? Math.round(value).toLocaleString('en') : String(Number((value ?? 0).toPrecision(4))));

export function cardView(model) {
  const facts = [
    ['Version', model.version], ['Task', kindOf(model)], ['Runs in', `${model.precision}${model.precisions?.length > 1 ? ` (could: ${model.precisions.join(', ')})` : ''}, ${model.provider}`],
    ['Batching', [BATCHING[model.batching], model.batchingReason].filter(Boolean).join('; ')],
    ['Limits', Object.entries(model.limits ?? {}).map(([name, most]) => `${name.replaceAll('_', ' ')} ${most.toLocaleString('en')}`).join(', ')],
    ['Labels', model.labels?.length ? `${model.labels.length}: ${model.labels.slice(0, 12).join(', ')}${model.labels.length > 12 ? ' …' : ''}` : ''],
    ['Channels', (model.frames?.channels ?? []).join(', ')],
    ['Inputs', (model.stepper?.inputs ?? []).map(({ name, shape }) => `${name} [${(shape ?? []).join(', ')}]`).join(', ')],
    ['Outputs', (model.stepper?.outputs ?? []).map(({ name, shape }) => `${name} [${(shape ?? []).join(', ')}]`).join(', ')],
    ['State', (model.state ?? []).map(({ name, units }) => `${name} (${units})`).join(', ')],
    ['Digest', model.digest], ['Fingerprint', model.fingerprint],
  ].filter(([, value]) => value);
  return h('div', { class: 'card' },
    h('section', {}, h('h3', {}, 'Figures'), figures(model)),
    h('section', {}, h('h3', {}, 'Data and licences'), data(model)),
    h('section', {}, h('h3', {}, 'Facts'), h('dl', {}, facts.map(([name, value]) => [h('dt', {}, name), h('dd', {}, value)]).flat())));
}

function figures({ figures = [] }) {
  if (!figures.length) return h('p', { class: 'hint' }, 'The bundle has none.');
  const hasFloors = figures.some(({ floors }) => floors?.length);
  const names = ['Figure', 'Value', ...(hasFloors ? ['Without a network'] : []), 'Examples', 'Measured on'];
  return h('div', { class: 'scroll', tabindex: '0', role: 'region', 'aria-label': 'Figures' }, h('table', {},
    h('thead', {}, h('tr', {}, names.map((name) => h('th', { scope: 'col' }, name)))),
    h('tbody', {}, figures.map((figure) => h('tr', {}, h('th', { scope: 'row' }, figure.name),
      h('td', {}, `${number(figure.value)} ${(figure.unit ?? '').split(',')[0]}`),
      hasFloors && h('td', {}, (figure.floors ?? []).map(({ by, value }) => `${number(value)} ${by}`).join('; ')),
      h('td', {}, (figure.examples ?? 0).toLocaleString('en')), h('td', {}, figure.split))))));
}

function data({ data = [] }) {
  if (!data.length) return h('p', { class: 'hint' }, 'The bundle names none.');
  return h('ul', {}, data.map((source) => h('li', {}, `${source.package} ${source.version ?? ''}: ${source.licence ?? 'no licence named'}`)));
}
