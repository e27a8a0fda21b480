// Two ways on from one place: as it would, and from a state in which a unit was changed.
import { field, h, plural, refusal, show } from './dom.js';

export class Fork {
  constructor(model, stream, signal, named) {
    this.model = model;
    this.stream = stream;
    this.signal = signal;
    this.value = h('input', { type: 'range', min: -1, max: 1, step: 0.05, value: 1 });
    this.shown = h('output', {}, '1');
    this.value.addEventListener('input', () => { this.shown.value = this.value.value; });
    this.hold = h('input', { type: 'number', min: 1, max: 200, value: stream.held });
    this.length = h('input', { type: 'number', min: 1, max: 1000, value: 160 });
    this.button = h('button', { type: 'submit', class: 'main' }, 'Go on both ways');
    this.where = h('p', { class: 'hint' });
    // Changes beside the one of the chosen unit, by tensor and unit.
    this.others = new Map();
    this.listed = h('ul', { class: 'changes', 'aria-label': 'Further units that are changed' });
    this.another = h('button', { type: 'button', onclick: () => this.#add() }, 'And another unit');
    this.keeper = model.task !== 'TASK_SEQ2SEQ' ? named?.keeper('Keep the changed state', () => ({ resumeToken: this.last.token })) : null;
    this.problem = h('div');
    this.plain = stream.way('The stream as it is');
    this.changed = stream.way('The stream from the changed state');
    this.plainSaid = h('p', { class: 'status', role: 'status' });
    this.changedSaid = h('p', { class: 'status', role: 'status' });
    const value = field('Value', this.value);
    value.querySelector('label').append(this.shown);
    this.form = h('form', { class: 'forking', onsubmit: (event) => { event.preventDefault(); this.run(); } },
      value, field(`Hold it for ${stream.noun}s`, this.hold), field(`${stream.noun[0].toUpperCase()}${stream.noun.slice(1)}s each way`, this.length), h('div', { class: 'buttons' }, this.button, this.another));
    this.ways = h('div', { class: 'ways', hidden: true },
      h('section', {}, h('h4', {}, 'As it is'), this.plain.element, this.plainSaid),
      h('section', {}, this.heading = h('h4', {}, 'Changed'), this.changed.element, this.changedSaid, this.keeper?.element));
    this.element = h('section', { class: 'fork' }, h('h4', {}, 'Change a unit and go on'), this.where, this.listed, this.form, this.problem, this.ways);
    this.enable(false);
  }

  clear() {
    this.place = undefined;
    this.ways.hidden = true;
    this.others.clear();
    show(this.problem);
    this.#report();
  }

  enable(isPossible) { this.isPossible = isPossible; this.#report(); }

  at(position) { this.place = position; this.#report(); }

  choose(unit, most) {
    this.unit = unit;
    if (most && Number(this.value.max) !== most) {
      this.value.min = -most;
      this.value.max = most;
      this.value.value = most;
      this.shown.value = String(most);
    }
    this.#report();
  }

  #report() {
    this.button.disabled = !(this.isPossible && this.unit);
    this.another.disabled = !this.unit;
    show(this.listed, [...this.others].map(([key, { name, unit, value }]) => h('li', {}, `${name}, unit ${unit} = ${value} `,
      h('button', { type: 'button', class: 'link', 'aria-label': `leave as it is: ${name}, unit ${unit}`, onclick: () => { this.others.delete(key); this.#report(); } }, 'leave as it is'))));
    if (!this.unit) this.where.textContent = `Choose a unit above, and ${this.stream.spot} where the ways part; without one they part at its end.`;
    else this.where.textContent = `${this.place === undefined ? 'From the end' : `After ${this.stream.noun} ${this.place + 1}`}: unit ${this.unit.unit} of ${this.unit.name} is set to this value.`;
  }

  /** The chosen unit stays changed while a further one is chosen. */
  #add() {
    const { name, unit } = this.unit;
    this.others.set(`${name} ${unit}`, { name, unit, value: Number(this.value.value) });
    this.#report();
  }

  /** As set_state takes them, each unit once. */
  #changes() {
    const { name, unit } = this.unit;
    const all = new Map([...this.others, [`${name} ${unit}`, { name, unit, value: Number(this.value.value) }]]);
    return [...all.values()].map((one) => ({ tensor: one.name, units: [one.unit], values: [one.value] }));
  }

  async run() {
    const changes = this.#changes();
    const { stream } = this;
    show(this.problem);
    this.ways.hidden = false;
    this.plain.clear();
    this.changed.clear();
    this.plainSaid.textContent = this.changedSaid.textContent = '';
    this.heading.textContent = changes.map(({ tensor, units, values }) => `${tensor}, unit ${units[0]} = ${values[0]}`).join('; ');
    this.keeper?.enable(false);
    this.button.disabled = true;
    try {
      const place = this.place === undefined ? undefined : this.place + 1;
      const count = Math.min(Number(this.length.value), stream.following(place));
      if (!count) throw Object.assign(new Error(`Both ways read the ${stream.noun}s that follow: choose an earlier one.`), { title: 'Nothing follows' });
      const point = await stream.pointAt(place);
      const held = Math.min(count, Number(this.hold.value));
      await Promise.all([
        stream.readOn(this.plain, point, count),
        (async () => {
          let from = point;
          // Held: it is set before each of so many tokens, a resumed stream each.
          for (let n = 0; n < held && from; n += 1) {
            from = await stream.readOn(this.changed, from, 1, changes) ?? null;
          }
          if (from && held < count) from = await stream.readOn(this.changed, from, count - held);
          this.digest = from?.changed ?? '';
          this.last = from;
          this.keeper?.enable(Boolean(from));
        })(),
      ]);
      this.#compare();
    } catch (error) {
      if (error.name !== 'AbortError') show(this.problem, refusal(error));
    }
    this.#report();
  }

  #compare() {
    const { noun, otherwise } = this.stream;
    const [one, other] = [this.plain, this.changed].map((way) => way.said());
    const first = other.findIndex((token, n) => token !== one[n]);
    this.changed.spans?.forEach((span, n) => span.classList.toggle('differs', first >= 0 && n >= first));
    this.plainSaid.textContent = `${plural(one.length, noun)}.`;
    this.changedSaid.textContent = `${plural(other.length, noun)}, ${first < 0 ? 'all the same' : `${otherwise} from ${noun} ${first + 1} on`}`
      + `${this.digest ? `; changed ${this.digest.slice(0, 12)}` : ''}.`;
  }
}
