// Generate: text streams in, as it is made.
import { field, h, plural, refusal, show } from './dom.js';
import { stream } from './connect.js';
import { callBox } from './code.js';
import { samplingControls } from './sampling.js';
import { modelInput } from './input.js';
import { example } from './examples.js';
import { TokenText, probabilityLegend } from './tokens.js';

const ENDS = {
  FINISH_REASON_END: 'the model ended it', FINISH_REASON_STOP: 'a stop text came up',
  FINISH_REASON_LENGTH: 'as long as asked for', FINISH_REASON_HANDED_OVER: 'the server stops',
};
const TOP = 5;

/** Runs one call of Generate; `on.tokens` has those of a frame, so that the page draws once a frame. */
export async function readTokens(request, signal, on) {
  let waiting = [];
  let frame = 0;
  const flush = () => { frame = 0; const tokens = waiting; waiting = []; if (tokens.length) on.tokens(tokens); };
  let last = {};
  try {
    for await (const message of stream('Generate', request, signal)) {
      if (message.seed !== undefined) on.seed?.(message.seed);
      for (const token of message.tokens ?? []) waiting.push(token);
      for (const point of message.resumePoints ?? []) on.point?.(point);
      if (waiting.length && !frame) frame = requestAnimationFrame(flush);
      last = message;
    }
  } finally {
    cancelAnimationFrame(frame);
    flush();
  }
  return last;
}

export function generateView(model, signal) {
  const sample = example(model);
  const input = modelInput(model);
  const sampling = samplingControls(model);
  const most = model.limits?.output_tokens;
  const length = h('input', { type: 'number', min: 1, max: most, value: Math.min(sample.maxTokens ?? most, most) });
  const stop = h('input', { type: 'text', autocomplete: 'off', placeholder: 'none' });
  const start = h('button', { type: 'submit', class: 'main' }, 'Generate');
  const end = h('button', { type: 'button', onclick: () => running?.abort() }, 'Stop');
  const said = h('p', { class: 'status', role: 'status' }, 'Nothing made yet.');
  const problem = h('div');
  const text = new TokenText('Generated text');
  let running = null;
  let speed;

  const request = () => ({
    model: model.name, ...input.input(), maxTokens: Number(length.value), ...sampling.sampling(),
    ...(stop.value ? { stop: [stop.value] } : {}), logProbabilities: true, topLogProbabilities: TOP,
  });
  const call = callBox(() => ['Generate', request()]);

  const tell = (end = '') => {
    const seconds = (performance.now() - speed.began) / 1000;
    const count = text.tokens.length;
    const first = speed.first ? `, the first after ${Math.round(speed.first - speed.began)} ms` : '';
    const rate = count > 1 && speed.last > speed.first
      ? `, ${Math.round(((count - 1) * 1000) / (speed.last - speed.first)).toLocaleString('en')} a second` : '';
    said.textContent = `${plural(count, 'token')}${seconds > 0 ? rate : ''}${first}${speed.seed ? `, seed ${speed.seed}` : ''}${end}`;
  };

  async function run() {
    running?.abort();
    const own = running = new AbortController();
    signal.addEventListener('abort', () => own.abort(), { signal: own.signal });
    text.clear(input.shown());
    show(problem);
    speed = { began: performance.now(), first: 0, last: 0 };
    end.disabled = false;
    let why = '';
    try {
      const last = await readTokens(request(), own.signal, {
        seed: (value) => { speed.seed = value; },
        tokens: (tokens) => {
          speed.last = performance.now();
          speed.first ||= speed.last;
          text.append(tokens);
          tell();
        },
      });
      why = `. Ended: ${ENDS[last.finishReason] ?? 'done'}.`;
    } catch (error) {
      why = '. Stopped.';
      if (error.name !== 'AbortError') show(problem, refusal(error));
    }
    if (running === own) { running = null; end.disabled = true; tell(why); }
  }

  end.disabled = true;
  const form = h('form', {
    class: 'form', oninput: call.update, onchange: call.update,
    onsubmit: (event) => { event.preventDefault(); run(); },
  }, input.element,
  h('div', { class: 'buttons' }, start, end),
  h('div', { class: 'pair' }, field('Tokens at most', length), field('Stop at', stop)), sampling.element);
  input.area?.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  const output = h('section', { class: 'output' }, problem, text.element, said, probabilityLegend());
  return h('div', { class: 'task' }, form, h('div', { class: 'answers' }, output, call.element));
}
