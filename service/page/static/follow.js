// Which units follow which property of what is read: the correlation of each unit with each property.

const PROPERTIES = [
  'inside quotation marks', 'last character of a line', 'inside a name or capitals', 'place in the line',
  'inside a word', 'after a sentence’s end',
];
const QUOTES = /["“”]/;

/** The properties of a text, token by token. */
export class TextProperties {
  names = PROPERTIES;

  #isQuoted = false;
  #place = 0;
  #isName = false;
  #isInWord = false;
  #hasEnded = true;

  /** Of a token, which `next` comes after; in the order of `names`. */
  of({ text = '' }, { text: next = '' }) {
    for (const letter of text) this.#read(letter);
    return [this.#isQuoted, next.startsWith('\n') && !text.endsWith('\n'), this.#isName, this.#place, this.#isInWord, this.#hasEnded].map(Number);
  }

  #read(letter) {
    if (QUOTES.test(letter)) this.#isQuoted = letter === '“' || (letter === '"' && !this.#isQuoted);
    this.#place = letter === '\n' ? 0 : this.#place + 1;
    const isLetter = /[\p{L}'’]/u.test(letter);
    if (!isLetter) this.#isName = false;
    else if (!this.#isInWord) this.#isName = /\p{Lu}/u.test(letter);
    this.#isInWord = isLetter;
    if (/[.!?]/.test(letter)) this.#hasEnded = true;
    else if (isLetter) this.#hasEnded = false;
  }
}

/** Which label a part has. */
export class LabelProperties {
  constructor(labels) {
    this.labels = labels;
    this.names = labels.map((label) => `labelled ${label}`);
  }

  of({ label }) { return this.labels.map((one) => Number(one === label)); }
}

/** Numbers that a token has by these names: [name, key] each. */
export class NumberProperties {
  constructor(named) {
    this.names = named.map(([name]) => name);
    this.keys = named.map(([, key]) => key);
  }

  of(token) { return this.keys.map((key) => token[key]); }
}

/** Sums out of which correlations follow; a token at a time, whatever the length of the text. */
export class Correlations {
  /** names: of the properties. */
  constructor(units, names) {
    this.units = units;
    this.names = names;
    this.count = 0;
    this.x = new Float64Array(units);
    this.xx = new Float64Array(units);
    this.y = new Float64Array(names.length);
    this.yy = new Float64Array(names.length);
    this.xy = names.map(() => new Float64Array(units));
  }

  add(values, properties) {
    const { x, xx, y, yy, xy, units } = this;
    this.count += 1;
    for (let unit = 0; unit < units; unit += 1) {
      const value = values[unit];
      x[unit] += value;
      xx[unit] += value * value;
    }
    properties.forEach((property, n) => {
      if (!property) return;
      y[n] += property;
      yy[n] += property * property;
      const sums = xy[n];
      for (let unit = 0; unit < units; unit += 1) sums[unit] += property * values[unit];
    });
  }

  /** The unit that follows each property best: { property, unit, r }; of those that vary. */
  best() {
    const found = [];
    for (let n = 0; n < this.names.length; n += 1) {
      const spreadOfY = this.count * this.yy[n] - this.y[n] ** 2;
      if (spreadOfY <= 0) continue;
      let best = { r: 0 };
      for (let unit = 0; unit < this.units; unit += 1) {
        const spread = this.count * this.xx[unit] - this.x[unit] ** 2;
        if (spread <= 1e-9 * this.count) continue;
        const r = (this.count * this.xy[n][unit] - this.x[unit] * this.y[n]) / Math.sqrt(spread * spreadOfY);
        if (Math.abs(r) > Math.abs(best.r)) best = { property: this.names[n], unit, r };
      }
      if (best.r) found.push(best);
    }
    return found.sort((a, b) => Math.abs(b.r) - Math.abs(a.r));
  }
}
