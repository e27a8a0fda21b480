// Classify of a model that reads numbers: the label of a sequence of frames.
import { bars, field, h } from './dom.js';
import { unary } from './connect.js';
import { answering } from './form.js';
import { example } from './examples.js';

const SHOWN = 8;

/** A line a frame, numbers between commas or spaces. */
export const framesOf = (text) => text.split('\n').map((line) => line.split(/[\s,;]+/).filter(Boolean).map(Number)).filter((frame) => frame.length);

const tensor = (frames) => ({ shape: [frames.length, frames[0]?.length ?? 0], floats: frames.flat() });

export function framesView(model, signal) {
  const { channels, frameSeconds } = model.frames;
  const area = h('textarea', { rows: 8, spellcheck: 'false' });
  const sample = example(model).frames ?? [channels.map(() => 0)];
  area.value = sample.map((frame) => frame.join(', ')).join('\n');
  const every = frameSeconds ? `, each ${Number((1000 * frameSeconds).toPrecision(3))} ms` : '';
  return answering({
    signal,
    fields: field('Frames', area, `A line a frame${every}: ${channels.length} numbers, ${channels.slice(0, 3).join(', ')}${channels.length > 3 ? ' …' : ''}`),
    button: 'Classify',
    hint: 'Labels appear here.',
    call: () => ['Classify', { model: model.name, frames: [tensor(framesOf(area.value))] }],
    answer: async (own) => {
      const { classifications: [whole] } = await unary('Classify', { model: model.name, frames: [tensor(framesOf(area.value))] }, own);
      return [
        bars(whole.labels.slice(0, SHOWN).map((one) => [one.label, one.probability ?? 0])),
        whole.labels.length > SHOWN && h('p', { class: 'hint' }, `and ${whole.labels.length - SHOWN} more labels`),
        model.stepper && h('p', { class: 'hint' }, h('a', { href: `#/${encodeURIComponent(model.name)}/step` }, 'Step'), ' has the label after each frame.'),
      ];
    },
  }).element;
}
