// Named states: what a stream begins from, and what is kept of one under a name.
import { field, h, plural, refusal, show } from './dom.js';
import { unary } from './connect.js';

const kilobytes = (bytes) => `${(Number(bytes) / 1000).toFixed(Number(bytes) < 10_000 ? 1 : 0)} kB`;

/** The states of one model that this caller has kept for a method's streams. Hidden while there are none. */
export class NamedStates {
  constructor(model, signal, method = 'Generate') {
    this.model = model;
    this.method = method;
    this.signal = signal;
    this.states = [];
    this.select = h('select', { onchange: () => this.#report() });
    this.forget = h('button', { type: 'button', class: 'quiet', onclick: () => this.#forget() }, 'Forget it');
    this.problem = h('div');
    this.element = field('Begin from', this.select, ' ');
    this.element.append(h('div', { class: 'row' }, this.forget), this.problem);
    this.hint = this.element.querySelector('.hint');
    this.refresh().catch(() => {});
  }

  get name() { return this.select.value; }

  /** Its part of a request. */
  from() { return this.name ? { state: this.name } : {}; }

  /** Likewise, with what is read after it. */
  begin(input) {
    if (!this.name) return input;
    return this.model.task === 'TASK_GENERATE' && input.prompt ? { prompt: input.prompt, ...this.from() } : this.from();
  }

  async refresh(chosen = this.name) {
    const { states = [] } = await unary('ListStates', { model: this.model.name }, this.signal);
    this.states = states.filter(({ method }) => method === this.method);
    show(this.select, h('option', { value: '' }, 'Nothing: what is read alone'),
      this.states.map(({ name, reason }) => h('option', { value: name, disabled: Boolean(reason) }, reason ? `${name}: ${reason}` : name)));
    this.select.value = this.states.some(({ name, reason }) => name === chosen && !reason) ? chosen : '';
    this.#report();
  }

  #report() {
    const state = this.states.find(({ name }) => name === this.name);
    this.element.hidden = !this.states.length;
    this.forget.disabled = !state;
    this.hint.textContent = state ? `${describe(state)}. ${this.#meaning()}`
      : 'A state that was kept under a name; it stays as it is.';
  }

  #meaning() {
    if (this.method !== 'Generate') return 'What comes is read after it.';
    return this.model.task === 'TASK_GENERATE' ? 'The prompt is read after it, or may be empty.' : 'It stands for its source.';
  }

  async #forget() {
    try {
      await unary('DeleteState', { name: this.name }, this.signal);
      await this.refresh('');
      show(this.problem);
      this.select.dispatchEvent(new Event('change', { bubbles: true }));
    } catch (error) {
      if (error.name !== 'AbortError') show(this.problem, refusal(error));
    }
  }

  /** A form that keeps a state. label: of its button. made(): what it is made of, as CreateState takes it. */
  keeper(label, made) {
    const name = h('input', { type: 'text', autocomplete: 'off', required: true, pattern: '[A-Za-z0-9][A-Za-z0-9._\\-]{0,63}', title: 'Letters, digits and . _ -', 'aria-label': 'Name to keep it under', placeholder: 'name' });
    const button = h('button', { type: 'submit' }, label);
    const said = h('p', { class: 'status', role: 'status' });
    const problem = h('div');
    const form = h('form', { class: 'keeping', onsubmit: async (event) => {
      event.preventDefault();
      show(problem);
      said.textContent = '';
      try {
        const { state } = await unary('CreateState', { name: name.value, model: this.model.name, ...await made() }, this.signal);
        await this.refresh(this.name);
        said.textContent = `Kept ${state.name}: ${describe(state)}. Choose it under “Begin from”.`;
      } catch (error) {
        if (error.name !== 'AbortError') show(problem, refusal(error));
      }
    } }, h('div', { class: 'row' }, name, button), said, problem);
    return { element: form, enable: (isPossible) => { button.disabled = !isPossible; } };
  }
}

function describe({ inputTokens, bytes, expires }) {
  const facts = [inputTokens ? plural(inputTokens, 'token') : '', bytes ? kilobytes(bytes) : ''].filter(Boolean);
  const until = expires ? `until ${new Date(1000 * expires).toLocaleString('en', { dateStyle: 'medium', timeStyle: 'short' })}` : '';
  return [...facts, until].filter(Boolean).join(', ');
}
