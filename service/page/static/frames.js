// Classify of a model that reads numbers: the label of a sequence of frames, and after each of them.
import { bars, field, h, percent } from './dom.js';
import { unary } from './connect.js';
import { answering } from './form.js';
import { example } from './examples.js';

const [SHOWN, MOST_BEGINNINGS] = [8, 64];

/** A line a frame, numbers between commas or spaces. */
export const framesOf = (text) => text.split('\n').map((line) => line.split(/[\s,;]+/).filter(Boolean).map(Number)).filter((frame) => frame.length);

const tensor = (frames) => ({ shape: [frames.length, frames[0]?.length ?? 0], floats: frames.flat() });

export function framesView(model, signal) {
  const { channels, frameSeconds } = model.frames;
  const area = h('textarea', { rows: 8, spellcheck: 'false' });
  const sample = example(model).frames ?? [channels.map(() => 0)];
  area.value = sample.map((frame) => frame.join(', ')).join('\n');
  const isStepped = Boolean(model.stepper);
  const every = frameSeconds ? `, each ${Number((1000 * frameSeconds).toPrecision(3))} ms` : '';
  return answering({
    signal,
    fields: field('Frames', area, `A line a frame${every}: ${channels.length} numbers, ${channels.slice(0, 3).join(', ')}${channels.length > 3 ? ' …' : ''}`),
    button: 'Classify',
    hint: 'Labels appear here.',
    call: () => ['Classify', { model: model.name, frames: [tensor(framesOf(area.value))] }],
    answer: async (own) => {
      const frames = framesOf(area.value);
      const beginnings = isStepped && frames.length <= MOST_BEGINNINGS ? frames.map((_, n) => tensor(frames.slice(0, n + 1))) : [];
      const { classifications } = await unary('Classify', { model: model.name, frames: [tensor(frames), ...beginnings] }, own);
      const [whole, ...each] = classifications;
      return [
        bars(whole.labels.slice(0, SHOWN).map((one) => [one.label, one.probability ?? 0])),
        whole.labels.length > SHOWN && h('p', { class: 'hint' }, `and ${whole.labels.length - SHOWN} more labels`),
        each.length > 0 && h('section', {}, h('h3', {}, 'After each frame'),
          h('ol', { class: 'segments' }, each.map(({ labels: [best] }) => h('li', {}, `${best.label} ${percent(best.probability ?? 0)}`)))),
      ];
    },
  }).element;
}
