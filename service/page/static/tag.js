// Tag: coloured labels, after the text or while it is typed, the state of the model beside them.
import { field, h, refusal, show } from './dom.js';
import { unary } from './connect.js';
import { callBox } from './code.js';
import { answering } from './form.js';
import { example } from './examples.js';
import { LabelProperties } from './follow.js';
import { LabelLine, labelled } from './labelled.js';
import { NamedStates } from './named.js';
import { PushedStream, push } from './pushed.js';
import { StatePanel } from './state.js';

const METHOD = 'StreamTag';

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
      return h('p', { class: 'tags' }, (texts[0].tokens ?? []).map(labelled));
    },
  });
  return model.streamsTags ? h('div', {}, whole.element, whileTyping(model, signal)) : whole.element;
}

const tagOf = ({ text = '', label = '', probability = 0, state }) => ({ text, label, probability, state });

function tagStream(model, signal, named, line, again) {
  return new PushedStream(model, METHOD, named, signal, {
    noun: 'word', spot: 'a word in the line', whole: 'the line', otherwise: 'other labels', unshaded: 'Colour by label',
    shown: line,
    part: ({ text }) => ({ words: { words: [text] } }),
    read: ({ tokens = [] }) => tokens.map(tagOf),
    way: (label) => new LabelLine(label),
    properties: () => new LabelProperties(model.labels),
    again,
  });
}

/** Each word is sent once it is finished; what was read before is kept for as long as the call. */
function whileTyping(model, signal) {
  const area = h('textarea', { rows: 3, spellcheck: 'false', placeholder: 'They can fish …', autocomplete: 'off' });
  const problem = h('div');
  const named = new NamedStates(model, signal, METHOD);
  const line = new LabelLine('Words and their labels', (position) => stream.panel?.at(position));
  const stream = tagStream(model, signal, named, line, () => { close(); more(); });
  if (model.state?.length) stream.panel = new StatePanel(model, line, stream, signal, named);
  let call = null;
  let sent = '';
  const finished = () => area.value.slice(0, area.value.search(/\S*$/));
  const close = () => { call?.close(); call = null; };
  signal.addEventListener('abort', close);

  function begin() {
    close();
    sent = '';
    stream.clear();
    show(problem);
    const own = call = push(METHOD, stream.start(), {
      message: (message) => stream.append(stream.read(message)),
      end: (error) => { if (call === own) call = null; if (error) show(problem, refusal(error)); },
    });
  }

  function more() {
    const text = finished();
    if (!call || !text.startsWith(sent)) begin();
    const next = text.slice(sent.length);
    if (!next.trim()) return;
    sent = text;
    call.send({ text: next });
  }

  const shown = () => [{ start: { model: model.name, ...named.from() } }, { text: finished() || area.placeholder.replace('…', '') }];
  const box = callBox(() => [METHOD, shown()]);
  area.addEventListener('input', more);
  named.element.addEventListener('change', () => { close(); more(); });
  const form = h('form', { class: 'form', oninput: box.update, onchange: box.update, onsubmit: (event) => event.preventDefault() },
    field('Each word is tagged as soon as a space ends it', area), named.element);
  return h('section', { class: 'online' }, h('h3', {}, 'While you type'),
    h('div', { class: 'task' }, form, h('div', { class: 'answers' }, h('section', { class: 'output' }, problem, line.element), stream.panel?.element, box.element)));
}
