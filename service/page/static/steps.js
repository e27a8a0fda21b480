// StreamStep over frames of numbers that are no audio: an answer after each, and the state that it leaves.
import { field, h, plural, refusal, show } from './dom.js';
import { callBox } from './code.js';
import { example } from './examples.js';
import { framesOf } from './frames.js';
import { LabelProperties, NumberProperties } from './follow.js';
import { LabelLine } from './labelled.js';
import { NamedStates } from './named.js';
import { PushedStream, push } from './pushed.js';
import { StatePanel } from './state.js';
import { Strips } from './strip.js';

export const METHOD = 'StreamStep';
const NUMBERS = { DATA_TYPE_FLOAT16: 'floats', DATA_TYPE_FLOAT32: 'floats', DATA_TYPE_FLOAT64: 'doubles', DATA_TYPE_UINT64: 'unsignedIntegers' };

/** Numbers of one step of an input or an output. */
export const sizeOf = ({ shape = [] }) => shape.reduce((product, length) => product * Number(length), 1);

/** Of a tensor of an answer that came typed. */
export const valuesOf = (tensor = {}) => (tensor.floats ?? tensor.doubles ?? tensor.integers ?? tensor.unsignedIntegers ?? tensor.booleans ?? []).map(Number);

export const stripsOf = (model, signal) => new Strips((model.stepper.outputs ?? []).map((output) => ({ name: output.name, rows: sizeOf(output) })), signal);

const frameOf = ({ dataType, shape = [] }, values) => ({ frame: { inputs: [{ shape: [1, ...shape.map(Number)], [NUMBERS[dataType] ?? 'integers']: values }] } });

/** What the first answer says: the likeliest label of a classifier, else its first number. */
function answerOf(model, values) {
  const best = values.indexOf(Math.max(...values));
  if (values.length > 1 && values.length === model.labels?.length) return { label: model.labels[best], probability: values[best] };
  return { label: String(Number((values[0] ?? 0).toPrecision(3))), answer: values[0] ?? 0 };
}

function frameStream(model, signal, named, line, again) {
  const [input] = model.stepper.inputs;
  const [output] = model.stepper.outputs ?? [];
  const isLabelled = sizeOf(output ?? {}) > 1 && model.labels?.length === sizeOf(output);
  return new PushedStream(model, METHOD, named, signal, {
    noun: 'frame', spot: 'a frame in the line', whole: 'the line', otherwise: 'other answers', unshaded: isLabelled ? 'Colour by label' : 'Colour by answer',
    shown: line,
    options: { typed: true },
    part: ({ frame }) => frameOf(input, frame),
    read: ({ results = [] }) => results.map(({ position = 0, outputs = [], state }) => {
      const values = outputs.map(valuesOf);
      return { text: String(position + 1), ...answerOf(model, values[0] ?? []), values, state };
    }),
    way: (label) => new LabelLine(label),
    properties: () => (isLabelled ? new LabelProperties(model.labels) : new NumberProperties([['the answer', 'answer']])),
    again,
  });
}

export function framesStepView(model, signal) {
  const [input] = model.stepper.inputs ?? [];
  if (model.stepper.inputs?.length !== 1) {
    return h('p', { class: 'hint' }, 'This model steps over several inputs at once: call StreamStep, of which the card lists inputs and outputs.');
  }
  const size = sizeOf(input);
  const area = h('textarea', { rows: 8, spellcheck: 'false' });
  area.value = (example(model).frames ?? [Array(size).fill(0)]).map((frame) => frame.join(', ')).join('\n');
  const problem = h('div');
  const said = h('p', { class: 'status', role: 'status' }, 'What the model answers after each frame appears here.');
  const named = new NamedStates(model, signal, METHOD);
  const strips = stripsOf(model, signal);
  const line = new LabelLine('Frames and their answers', (position) => stream.panel?.at(position));
  const stream = frameStream(model, signal, named, line, () => { if (line.tokens.length) run(); });
  if (model.state?.length) stream.panel = new StatePanel(model, line, stream, signal, named);
  let call = null;
  signal.addEventListener('abort', () => call?.close());

  function run() {
    call?.close();
    const frames = framesOf(area.value);
    stream.clear();
    strips.clear();
    show(problem);
    said.textContent = '';
    call = push(METHOD, stream.start(), {
      message: (message) => {
        const tokens = stream.read(message);
        tokens.forEach((token, n) => {
          token.frame = frames[line.tokens.length + n];
          strips.append(token.values, 1, frames.length);
        });
        stream.append(tokens);
        said.textContent = `${plural(line.tokens.length, 'frame')} of ${frames.length}.`;
      },
      end: (error) => { if (error) show(problem, refusal(error)); },
    });
    frames.forEach((frame) => call.send(frameOf(input, frame)));
    call.send(null);
  }

  const messages = () => [{ start: { model: model.name, typed: true, ...named.from() } }, ...framesOf(area.value).map((frame) => frameOf(input, frame))];
  const box = callBox(() => [METHOD, messages()]);
  const every = model.stepper.frameSeconds ? `, each ${Number((1000 * model.stepper.frameSeconds).toPrecision(3))} ms` : '';
  const form = h('form', { class: 'form', oninput: box.update, onchange: box.update, onsubmit: (event) => { event.preventDefault(); run(); } },
    field('Frames', area, `A line a frame${every}: ${plural(size, 'number')}`), named.element,
    h('div', { class: 'buttons' }, h('button', { type: 'submit', class: 'main' }, 'Step')));
  return h('div', { class: 'task' }, form, h('div', { class: 'answers' },
    h('section', { class: 'output' }, problem, line.element, said), strips.element, stream.panel?.element, box.element));
}
