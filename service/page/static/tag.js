// Tag: coloured labels, after the text or while it is typed.
import { field, h, percent, refusal, show } from './dom.js';
import { socket, unary } from './connect.js';
import { answering } from './form.js';
import { example } from './examples.js';

const HUES = 12;

/** The same label has the same hue in every text. */
function hue(label) {
  let sum = 0;
  for (const letter of label) sum = (sum * 31 + letter.codePointAt(0)) % 9973;
  return sum % HUES;
}

const tagged = ({ text, label, probability = 0 }) => h('span', { class: `tag h${hue(label)}`, title: `${label}, ${percent(probability)}` },
  h('span', {}, text), h('small', {}, label));

export function tagView(model, signal) {
  const area = h('textarea', { rows: 4, spellcheck: 'false' });
  area.value = example(model).text;
  const message = () => ({ model: model.name, items: [{ text: area.value }] });
  const whole = answering({
    signal,
    fields: [field('Text', area)],
    button: 'Tag',
    hint: 'Labels appear here, a colour each.',
    call: () => ['Tag', message()],
    answer: async (own) => {
      const { texts } = await unary('Tag', message(), own);
      return h('p', { class: 'tags' }, (texts[0].tokens ?? []).map(tagged));
    },
  });
  return model.streamsTags ? h('div', {}, whole.element, whileTyping(model, signal)) : whole.element;
}

/** Each word is sent once it is finished; what was read before is kept for as long as the call. */
function whileTyping(model, signal) {
  const area = h('textarea', { rows: 3, spellcheck: 'false', placeholder: 'They can fish …', autocomplete: 'off' });
  const line = h('p', { class: 'tags', 'aria-live': 'polite' });
  const problem = h('div');
  let call = null;
  let sent = '';
  let waiting = [];
  const close = () => { call?.close(); call = null; };
  signal.addEventListener('abort', close);

  function begin() {
    close();
    sent = '';
    waiting = [];
    show(line);
    show(problem);
    let isOpen = false;
    const own = call = socket('StreamTag', {
      open: () => { isOpen = true; own.send({ start: { model: model.name } }); waiting.splice(0).forEach((part) => own.send(part)); },
      message: ({ tokens = [] }) => line.append(...tokens.map(tagged)),
      end: (error) => { if (call === own) call = null; if (error) show(problem, refusal(error)); },
    });
    own.say = (text) => { if (isOpen) own.send({ text }); else waiting.push({ text }); };
  }

  area.addEventListener('input', () => {
    const finished = area.value.slice(0, area.value.search(/\S*$/));
    if (!call || !finished.startsWith(sent)) begin();
    const next = finished.slice(sent.length);
    if (!next.trim()) return;
    sent = finished;
    call.say(next);
  });
  return h('section', { class: 'online' }, h('h3', {}, 'While you type'),
    field('Each word is tagged as soon as a space ends it', area), problem, line);
}
