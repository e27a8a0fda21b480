// The state of a stream: every unit while it comes, one unit over all of it, units by what they
// follow; and other ways to go on, from a changed unit.
import { choices, h, refusal, show } from './dom.js';
import { UnitMap } from './map.js';
import { Correlations } from './follow.js';
import { unitShade } from './tokens.js';
import { Fork } from './fork.js';

const RANK_MS = 500;
// With fewer some unit of a thousand follows anything.
const LEAST_TOKENS = 80;
const MOST_FOLLOWED = 6;

const KINDS = [
  ['hidden_', 'Hidden states', (value) => Math.max(-1, Math.min(1, value)), 1],
  ['cell_', 'Cells', (value) => Math.tanh(value / 3), 6],
];
// Of tensors with other names, such as those of a graph from elsewhere.
const OTHERS = ['', 'Other values', (value) => Math.tanh(value), 3];

const kindOf = (name) => KINDS.find(([prefix]) => name.startsWith(prefix)) ?? OTHERS;

const layerOf = (name) => (kindOf(name) === OTHERS ? name : `layer ${Number(name.split('_').at(-1)) + 1}`);

/** text: what shows the stream, such as a TokenText. stream: what goes on with it: a Run of
 *  generate.js, which has the state before each token, or a PushedStream. named: the
 *  NamedStates of the model, null where none can be made; input(): what the form reads. */
export class StatePanel {
  constructor(model, text, stream, signal, named, input) {
    this.model = model;
    this.text = text;
    this.stream = stream;
    const kinds = [...KINDS, OTHERS].filter((kind) => model.state.some(({ name }) => kindOf(name) === kind));
    this.maps = h('div', { class: 'maps' });
    // Of a stream that goes on by itself nothing moves when the list comes.
    this.following = h('ol', { class: `following${stream.freeze ? ' roomy' : ''}` });
    this.followHint = h('p', { class: 'hint' });
    this.problem = h('div');
    this.unitName = h('strong', {});
    this.scale = h('span', { class: 'scale', hidden: true }, 'low', [-10, -6, -3, 0, 3, 6, 10].map((step) => h('span', { class: unitShade(step / 10) })), 'high');
    this.back = h('button', { type: 'button', class: 'quiet', disabled: true, onclick: () => this.choose(null) }, stream.unshaded);
    this.freeze = h('button', { type: 'button', onclick: () => stream.freeze() }, 'Freeze');
    this.stepping = h('button', { type: 'button', onclick: () => stream.goOn(1) }, 'Step one token');
    this.goingOn = h('button', { type: 'button', onclick: () => stream.goOn() }, 'Go on');
    this.fork = new Fork(model, stream, signal, named);
    // Of a model that reads a whole source, a state with a name stands for that source.
    const isAlone = model.task !== 'TASK_SEQ2SEQ';
    this.keeper = named?.keeper(isAlone ? 'Keep this state' : 'Keep this source', async () => (isAlone
      ? { resumeToken: (await stream.pointAt(this.place === undefined ? undefined : this.place + 1)).token } : input()));
    const picked = choices('What of the state', kinds.map(([prefix, name]) => [prefix, name]), (prefix) => this.#watch(kinds.find(([one]) => one === prefix)));
    const moves = stream.freeze ? [this.freeze, this.stepping, this.goingOn] : [];
    this.element = h('section', { class: 'state' },
      h('div', { class: 'row' }, h('h3', {}, 'The state'), kinds.length > 1 ? picked : null, h('span', { class: 'grow' }), moves),
      this.problem, this.maps, this.keeper?.element,
      h('div', { class: 'unit row' }, this.unitName, this.scale, h('span', { class: 'grow' }), this.back),
      h('div', { class: 'follow' }, h('h4', {}, 'What units follow'), this.followHint, this.following),
      this.fork.element);
    this.clear();
    this.running(false);
    addEventListener('themechange', () => this.#draw(), { signal });
  }

  #watch(kind) {
    const [, , squash, most] = kind;
    this.tensors = this.model.state.filter(({ name }) => kindOf(name) === kind);
    this.squash = squash;
    this.most = most;
    let from = 0;
    this.pictures = this.tensors.map(({ name, units }) => {
      const map = new UnitMap(name, layerOf(name), units, squash, (unit) => this.choose({ name, unit, at: map.from + unit }));
      map.from = from;
      from += units;
      return map;
    });
    this.units = from;
    show(this.maps, this.pictures.map((map) => map.element));
    // What was watched of another kind says nothing of this one.
    const isAnother = Boolean(this.states);
    if (isAnother) this.clear();
    this.choose(null);
    if (isAnother) this.stream.again?.();
  }

  /** A new stream. */
  clear() {
    this.states = [];
    this.properties = this.stream.properties();
    this.correlations = new Correlations(this.units, this.properties.names);
    this.rankedAt = 0;
    this.pictures.forEach((map) => map.draw(new Float32Array(map.units)));
    show(this.problem);
    this.#rank();
    this.fork.clear();
  }

  /** Tokens that came, before they are shown; of each the state before or after it, of `tensors`. */
  read(tokens, states, position, tensors) {
    if (tensors !== this.tensors) return; // another kind is watched by now
    tokens.forEach((token, n) => {
      const values = states[n];
      if (!values) return;
      const at = position + n;
      this.states[at] = values;
      const last = this.stream.lag ? at > 0 && (n > 0 ? tokens[n - 1] : this.text.tokens[at - 1]) : token;
      if (last) this.correlations.add(values, this.properties.of(last, token));
    });
    this.#draw();
    if (performance.now() - this.rankedAt > RANK_MS) this.#rank();
  }

  running(isRunning) {
    const has = this.text.tokens.length > 0;
    this.freeze.disabled = !isRunning;
    this.stepping.disabled = this.goingOn.disabled = isRunning || !has;
    this.fork.enable(!isRunning && has);
    this.keeper?.enable(!isRunning && has);
    if (!isRunning) this.#rank();
  }

  /** Show the state after the token at a place; the last one known without. */
  at(position) {
    this.place = position;
    this.fork.at(position);
    this.#draw();
  }

  fail(error) { show(this.problem, refusal(error)); }

  #draw() {
    const values = (this.place !== undefined && this.states[this.place + this.stream.lag]) || this.states.at(-1);
    if (!values) return;
    this.pictures.forEach((map) => map.draw(values.subarray(map.from, map.from + map.units)));
  }

  /** unit: { name, unit, at }, or null. */
  choose(unit) {
    this.chosen = unit;
    this.pictures.forEach((map) => map.choose(unit?.name === map.name ? unit.unit : undefined));
    this.back.disabled = !unit;
    this.scale.hidden = !unit;
    this.unitName.textContent = unit ? `${layerOf(unit.name)}, unit ${unit.unit}` : `Click a unit: ${this.stream.whole} takes its colour.`;
    this.text.shadeBy(unit && ((position) => {
      const values = this.states?.[position + this.stream.lag];
      return values && this.squash(values[unit.at]);
    }));
    this.fork?.choose(unit, this.most);
  }

  #rank() {
    this.rankedAt = performance.now();
    const { count } = this.correlations;
    if (count < LEAST_TOKENS) {
      this.followHint.textContent = `After ${LEAST_TOKENS} ${this.stream.noun}s: which unit goes along with which property of ${this.stream.whole}.`;
      show(this.following);
      return;
    }
    this.followHint.textContent = `The unit of all ${this.units} that correlates best with each, over ${count} ${this.stream.noun}s. Chance alone reaches about ${(4 / Math.sqrt(count)).toFixed(2)}.`;
    show(this.following, this.correlations.best().slice(0, MOST_FOLLOWED).map(({ property, unit, r }) => {
      const map = this.pictures.findLast((one) => one.from <= unit);
      const place = unit - map.from;
      return h('li', {}, h('span', { class: 'name' }, property),
        h('button', { type: 'button', class: 'link', onclick: () => this.choose({ name: map.name, unit: place, at: unit }) }, `${layerOf(map.name)}, unit ${place}`),
        h('span', { class: 'number' }, `r ${r < 0 ? '−' : ''}${Math.abs(r).toFixed(2)}`));
    }));
  }
}
