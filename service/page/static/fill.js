// Fill: the likeliest words of a blank.
import { bars, field, h } from './dom.js';
import { unary } from './connect.js';
import { answering } from './form.js';
import { example } from './examples.js';

const BLANK = /_{3,}/;

export function fillView(model, signal) {
  const area = h('textarea', { rows: 4, spellcheck: 'false' });
  area.value = example(model).text;
  const message = () => ({ model: model.name, texts: [area.value], topWords: 10 });
  return answering({
    signal,
    fields: field('Text', area, 'Three or more underscores are the blank.'),
    button: 'Fill in',
    hint: 'Words appear here, the likeliest first.',
    call: () => ['Fill', { model: model.name, texts: [area.value] }],
    answer: async (own) => {
      const { blanks } = await unary('Fill', message(), own);
      const [before, after] = area.value.split(BLANK);
      const word = h('mark', {}, blanks[0].words[0].word);
      return [
        h('p', { class: 'parts', role: 'status' }, before, word, after),
        bars(blanks[0].words.map((one) => [one.word, one.probability ?? 0]), (chosen) => { word.textContent = chosen; }),
      ];
    },
  }).element;
}
