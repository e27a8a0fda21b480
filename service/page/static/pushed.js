// Calls of StreamTag and StreamStep: parts are sent as they come, and answered as they come.
import { socket } from './connect.js';
import { halves } from './half.js';

/** A call under way. start: its first message. `on`: message, and end (with Refused, or nothing).
 *  send(null) ends the parts. */
export function push(method, start, on) {
  const waiting = [{ start }];
  let isOpen = false;
  const call = socket(method, {
    ...on,
    open: () => { isOpen = true; waiting.splice(0).forEach((part) => call.send(part)); on.open?.(); },
  });
  return { send: (part) => { if (isOpen) call.send(part); else waiting.push(part); }, close: call.close };
}

/** All parts at once; the resume point after the last of them. Throws Refused, or AbortError. */
function pushAll(method, start, parts, signal, onMessage = () => {}) {
  return new Promise((resolve, reject) => {
    let point;
    const call = push(method, { ...start, resumeAtEnd: true }, {
      message: (message) => { point = message.resumePoints?.at(-1) ?? point; onMessage(message); },
      end: (error) => (error ? reject(error) : resolve(point)),
    });
    signal.addEventListener('abort', () => { call.close(); reject(signal.reason); }, { once: true });
    parts.forEach(call.send);
    call.send(null);
  });
}

/** What the state's panel asks of a stream whose parts the page sends. The state beside an answer is
 *  the one after its part was read.
 *
 *  shown: what grows as answers come, with its `tokens`. part(token): the message that it answers.
 *  read(message): the tokens of an answer. way(label): another box of the kind of `shown`.
 *  noun, spot, whole, otherwise, unshaded: what the panel calls a part, one that is chosen, all of
 *  them, others than before, and to show no unit. properties(): what units may follow. */
export class PushedStream {
  lag = 0;
  // Each is a call, which costs more than a token's.
  held = 8;

  constructor(model, method, named, signal, how) {
    Object.assign(this, { model, method, named, signal, base: {} }, how);
  }

  /** Of a new call: what it begins from, and what of the state comes beside its answers. */
  start() {
    this.base = this.named.from();
    const tensors = this.panel?.tensors ?? [];
    this.watched = tensors;
    return { model: this.model.name, ...this.options, ...this.base, ...(tensors.length ? { watch: { tensors: tensors.map(({ name }) => name) } } : {}) };
  }

  /** Shows the tokens of an answer. */
  append(tokens) {
    const from = this.shown.tokens.length;
    const states = tokens.map((token) => {
      const found = token.state && halves(token.state);
      delete token.state;
      return found;
    });
    this.panel?.read(tokens, states, from, this.watched);
    this.shown.append(tokens);
    this.panel?.running(false);
  }

  clear() {
    this.shown.clear();
    this.panel?.clear();
    this.panel?.at();
    this.panel?.running(false);
  }

  /** The resume point after so many parts, all without: the same parts lead to the same state. */
  pointAt(count = this.shown.tokens.length) {
    return pushAll(this.method, { model: this.model.name, ...this.options, ...this.base }, this.#parts(0, count), this.signal);
  }

  /** So many of the parts after a place are there to go on with. */
  following(place = this.shown.tokens.length) { return this.shown.tokens.length - place; }

  /** The parts after a resume point, once more; returns the point after them. */
  readOn(box, point, count, setState = []) {
    const from = point.nextPosition ?? 0;
    return pushAll(this.method, { model: this.model.name, ...this.options, resumeToken: point.token, setState }, this.#parts(from, from + count), this.signal,
      (message) => box.append(this.read(message)));
  }

  #parts(from, to) { return this.shown.tokens.slice(from, to).map(this.part); }
}
