// A form whose answer is one: the call runs on submit, its answer or refusal is shown beside.
import { h, refusal, show } from './dom.js';
import { callBox } from './code.js';

/** call(): [method, message]. answer(controller's signal): nodes to show. */
export function answering({ fields, button, call, answer, signal, hint = '' }) {
  const box = callBox(call);
  const answers = h('div', { class: 'answer', 'aria-live': 'polite' }, h('p', { class: 'hint' }, hint));
  const submit = h('button', { type: 'submit', class: 'main' }, button);
  let running = null;
  async function run() {
    running?.abort();
    const own = running = new AbortController();
    signal.addEventListener('abort', () => own.abort(), { signal: own.signal });
    answers.setAttribute('aria-busy', 'true');
    try {
      show(answers, await answer(own.signal));
    } catch (error) {
      if (error.name !== 'AbortError') show(answers, refusal(error));
    }
    if (running === own) answers.removeAttribute('aria-busy');
  }
  const form = h('form', {
    class: 'form', oninput: box.update, onchange: box.update,
    onsubmit: (event) => { event.preventDefault(); run(); },
  }, fields, h('div', { class: 'buttons' }, submit));
  return { element: h('div', { class: 'task' }, form, h('div', { class: 'answers' }, answers, box.element)), form, run, update: box.update };
}
