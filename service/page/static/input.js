// What a generating model reads: a prompt, a source or a vector.
import { field, h } from './dom.js';
import { example } from './examples.js';

const NAMES = { TASK_GENERATE: ['prompt', 'Prompt'], TASK_SEQ2SEQ: ['source', 'Source'] };

/** element; input(): its part of a request; shown(): the text that what is made goes on from. */
export function modelInput(model) {
  const sample = example(model);
  if (model.task === 'TASK_VECTOR_TO_SEQUENCE') return vectorInput(model, sample.vector);
  const [name, label] = NAMES[model.task];
  const area = h('textarea', { rows: 3, spellcheck: 'false', autocomplete: 'off' });
  area.value = sample[name];
  return {
    element: field(label, area),
    input: () => ({ [name]: area.value }),
    shown: () => (name === 'prompt' ? area.value : ''),
    area,
  };
}

function vectorInput(model, values) {
  const absent = model.limits?.unknown_values ? '' : 0;
  const inputs = (model.vectorFields ?? []).map((name) => [name, h('input', { type: 'number', step: 'any', value: values[name] ?? absent, placeholder: absent === '' ? 'unknown' : '' })]);
  const element = h('fieldset', { class: 'vector' }, h('legend', {}, 'Vector'), inputs.map(([name, input]) => field(name, input)));
  return {
    element,
    input: () => ({ vector: { values: inputs.map(([, input]) => (input.value === '' && absent === '' ? 'NaN' : Number(input.value))) } }),
    shown: () => '',
  };
}
