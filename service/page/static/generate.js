// Generate: text streams in, as it is made; the state is watched, frozen and gone on from.
import { field, h, plural, refusal, show } from './dom.js';
import { readTokens } from './reading.js';
import { callBox } from './code.js';
import { samplingControls } from './sampling.js';
import { modelInput } from './input.js';
import { example } from './examples.js';
import { TokenText, probabilityLegend } from './tokens.js';
import { StatePanel } from './state.js';
import { AttentionMap } from './attention.js';
import { constraintField } from './constraint.js';
import { NamedStates } from './named.js';
import { halves } from './half.js';
import { TextProperties } from './follow.js';

const ENDS = {
  FINISH_REASON_END: 'the model ended it', FINISH_REASON_STOP: 'a stop text came up',
  FINISH_REASON_LENGTH: 'as long as asked for', FINISH_REASON_HANDED_OVER: 'the server stops',
  FINISH_REASON_UNFINISHED: 'too short for its constraint',
};
const TOP = 5;
// What is said of a stream under way is read out by screen readers, which a change a frame would flood.
const REPORT_MS = 500;
// From the nearest resume point before it the stream is made again up to a place that was chosen.
const RESUME_EVERY = 16;

/** One stream of the page: what was asked, what came, and where it can go on from. The state beside a
 *  token is that before it; what else the state's panel asks is as of a PushedStream. */
class Run {
  lag = 1;
  // Tokens for which a changed unit is held at first.
  held = 60;
  noun = 'token';
  spot = 'a token in the text';
  whole = 'the text';
  otherwise = 'another text';
  unshaded = 'Shade by probability';

  constructor(model, text, signal, on) {
    this.model = model;
    this.text = text;
    this.signal = signal;
    this.on = on;
    this.running = null;
    this.points = new Map();
  }

  start(request, shown) {
    this.asked = request;
    this.points.clear();
    this.speed = { count: 0, seed: request.sampling?.seed };
    this.text.clear(shown);
    this.panel?.clear();
    this.attention?.clear();
    // Of a state with a name the source is not kept as a text.
    return this.#read({ ...request, ...(this.attention && !request.state ? { echo: true } : {}) });
  }

  freeze() { this.running?.abort(); }

  /** So many tokens more; all that are left without. */
  async goOn(count) {
    try {
      const point = await this.pointAt();
      const left = this.asked.maxTokens - this.text.tokens.length;
      const most = count ?? (left > 0 ? left : this.asked.maxTokens);
      this.speed.count = 0;
      await this.#read({
        model: this.model.name, resumeToken: point.token, maxTokens: most, resumeAtEnd: true, ...beside(),
      });
    } catch (error) {
      if (error.name !== 'AbortError') this.on.failed(error);
    }
  }

  /** The resume point at a place in the text, its end without. The same request and seed make the
   *  same tokens, so where there is none it is made on the way from the last one before. */
  async pointAt(position = this.text.tokens.length) {
    const known = this.points.get(position);
    if (known) return known;
    const before = Math.max(0, ...[...this.points.keys()].filter((place) => place < position));
    const from = this.points.get(before);
    const request = from ? { model: this.model.name, resumeToken: from.token }
      : { ...this.asked, sampling: { ...this.asked.sampling, seed: this.speed.seed } };
    await readTokens({ ...request, maxTokens: position - before, resumeAtEnd: true }, this.signal, {
      tokens: () => {}, point: (point) => this.points.set(point.nextPosition ?? 0, point),
    });
    const found = this.points.get(position);
    if (!found) throw Object.assign(new Error('The stream cannot go on from here: the model ended it.'), { title: 'Nothing to go on from' });
    return found;
  }

  properties() { return new TextProperties(); }

  way(label) { return new TokenText(label); }

  following() { return Infinity; }

  /** So many tokens after a resume point; returns the point after them, undefined where it ended. */
  async readOn(box, from, count, setState = []) {
    let point;
    await readTokens({ model: this.model.name, resumeToken: from.token, maxTokens: count, resumeAtEnd: true, logProbabilities: true, setState }, this.signal, {
      tokens: (tokens) => box.append(tokens), point: (one) => { point = one; },
    });
    return point;
  }

  /** What comes beside a token: values of the state, then how much it looks at each place. */
  #watching() {
    const tensors = this.panel?.tensors ?? [];
    const names = [...tensors.map(({ name }) => name), ...(this.attention ? ['attention'] : [])];
    return { tensors, request: names.length ? { watch: { tensors: names }, resumeEvery: RESUME_EVERY } : {} };
  }

  #watched(tokens, tensors) {
    const from = this.text.tokens.length;
    const units = tensors.reduce((sum, tensor) => sum + tensor.units, 0);
    const values = tokens.map((token) => {
      const found = token.state && halves(token.state);
      delete token.state;
      return found;
    });
    this.panel?.read(tokens, values.map((one) => one?.subarray(0, units)), from, tensors);
    this.attention?.append(tokens, values.map((one) => one?.subarray(units)));
  }

  async #read(request) {
    this.running?.abort();
    const watching = this.#watching();
    const own = this.running = new AbortController();
    this.signal.addEventListener('abort', () => own.abort(), { signal: own.signal });
    const { speed } = this;
    speed.began = performance.now();
    speed.first = speed.last = 0;
    speed.reported = -Infinity;
    this.panel?.at();
    this.panel?.running(true);
    this.on.running(true);
    this.on.report('');
    let why;
    try {
      const last = await readTokens({ ...request, ...watching.request }, own.signal, {
        echo: (tokens) => this.attention?.read(tokens),
        seed: (value) => { speed.seed = value; },
        point: (point) => this.points.set(point.nextPosition ?? 0, point),
        tokens: (tokens) => {
          speed.last = performance.now();
          speed.first ||= speed.last;
          speed.count += tokens.length;
          this.#watched(tokens, watching.tensors);
          this.text.append(tokens);
          if (speed.last - speed.reported < REPORT_MS) return;
          speed.reported = speed.last;
          this.on.report('');
        },
      });
      const { inputTokens = 0, cachedTokens = 0 } = last.usage ?? {};
      why = `. Ended: ${ENDS[last.finishReason] ?? 'done'}.${cachedTokens ? ` Of ${plural(inputTokens, 'input token')} ${cachedTokens.toLocaleString('en')} had been read before.` : ''}`;
    } catch (error) {
      why = '. Stopped.';
      if (error.name !== 'AbortError') this.on.failed(error);
    }
    if (this.running !== own) return;
    this.running = null;
    this.panel?.running(false);
    this.on.running(false);
    this.on.report(why);
  }
}

const beside = () => ({ logProbabilities: true, topLogProbabilities: TOP });

export function generateView(model, signal) {
  const sample = example(model);
  const input = modelInput(model);
  const sampling = samplingControls(model);
  const most = model.limits?.output_tokens;
  const length = h('input', { type: 'number', min: 1, max: most, value: Math.min(sample.maxTokens ?? most, most) });
  const stop = h('input', { type: 'text', autocomplete: 'off', placeholder: 'none' });
  const start = h('button', { type: 'submit', class: 'main' }, 'Generate');
  const end = h('button', { type: 'button', onclick: () => run.freeze() }, 'Stop');
  const said = h('p', { class: 'status', role: 'status' }, 'Nothing made yet.');
  const problem = h('div');
  const text = new TokenText('Generated text', (position) => { run.panel?.at(position); run.attention?.at(position); });
  const run = new Run(model, text, signal, {
    running: (isRunning) => { end.disabled = !isRunning; },
    failed: (error) => show(problem, refusal(error)),
    report: (why) => { said.textContent = summary(run.speed, text.tokens.length) + why; },
  });
  const isKept = model.task !== 'TASK_VECTOR_TO_SEQUENCE';
  const named = isKept ? new NamedStates(model, signal) : null;
  const constraint = constraintField();
  if (model.state?.length) run.panel = new StatePanel(model, text, run, signal, named, () => input.input());
  if (model.attended) run.attention = new AttentionMap(model.attended, signal);

  const request = () => ({
    model: model.name, ...(named?.begin(input.input()) ?? input.input()), maxTokens: Number(length.value), ...sampling.sampling(),
    ...(stop.value ? { stop: [stop.value] } : {}), ...constraint.constraint(), ...beside(),
  });
  const call = callBox(() => ['Generate', request()]);
  end.disabled = true;
  const form = h('form', {
    class: 'form', oninput: call.update, onchange: call.update,
    onsubmit: (event) => { event.preventDefault(); show(problem); run.start(request(), input.shown()); output.scrollIntoView({ block: 'nearest' }); },
  }, input.element, named?.element,
  h('div', { class: 'buttons' }, start, end),
  h('div', { class: 'pair' }, field('Tokens at most', length), field('Stop at', stop)), sampling.element, constraint.element);
  input.area?.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) form.requestSubmit();
  });
  const output = h('section', { class: 'output' }, problem, text.element, said, probabilityLegend());
  return h('div', { class: 'task' }, form, h('div', { class: 'answers' }, output, run.attention?.element ?? unattended(model), run.panel?.element, call.element));
}

/** For a bundle whose graph does not report its attention. */
function unattended(model) {
  if (model.task !== 'TASK_SEQ2SEQ') return null;
  return h('p', { class: 'hint' }, 'This bundle does not report where it looks. ',
    h('a', { href: `#/${encodeURIComponent(model.name)}/score` }, 'Score'), ' shows what hangs on what, by leaving out parts of the source.');
}

function summary({ began, first, last, count, seed }, total) {
  const rate = count > 1 && last > first ? `, ${Math.round(((count - 1) * 1000) / (last - first)).toLocaleString('en')} a second` : '';
  const wait = first ? `, the first after ${Math.round(first - began)} ms` : '';
  return `${plural(total, 'token')}${rate}${wait}${seed ? `, seed ${seed}` : ''}`;
}
