// A call as Python, curl and grpcurl, to copy.
import { choices, h } from './dom.js';
import { SERVICE } from './connect.js';

const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const MOST_COLUMNS = 60;
const STREAMS = new Set(['Generate', 'Forecast']);

function python(value) {
  if (value === true) return 'True';
  if (value === false) return 'False';
  if (value === null) return 'None';
  if (Array.isArray(value)) return `[${value.map(python).join(', ')}]`;
  if (value && typeof value === 'object') {
    return `{${Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${python(v)}`).join(', ')}}`;
  }
  return JSON.stringify(value);
}

// Unknown values, which JSON of protobuf writes as NaN.
const known = (vector) => vector.values.map((value) => (value === 'NaN' ? null : value));

// Arguments in one line, or else a line each.
function listed(values) {
  const line = values.join(', ');
  return line.length <= MOST_COLUMNS ? line : `\n    ${values.join(',\n    ')},\n`;
}

const keywords = (message) => Object.entries(message).map(([name, value]) => `${snake(name)}=${python(value)}`);

function generateKeywords({ model, sampling = {}, vector, beam, seed, constraint, ...rest }) {
  const held = constraint?.choices ? { choices: constraint.choices.texts } : constraint;
  const given = { ...rest, ...(vector ? { vector: known(vector) } : {}), ...held };
  const { seed: drawn, ...values } = sampling;
  const seeds = drawn === undefined ? [] : [`seed=${drawn}`];
  const beams = beam ? [`beam=Beam(${keywords(beam).join(', ')})`] : [];
  return [...keywords(given), ...keywords(values), ...seeds, ...beams];
}

const classifyTexts = (m) => `for answer in client.classify(${listed([python(m.model), python(m.texts)])}):\n    print(answer.best)`;

function classifyFrames({ model, frames: [{ shape: [rows, width], floats }] }) {
  const listing = Array.from({ length: rows }, (_, n) => `    ${python(floats.slice(n * width, (n + 1) * width))},\n`).join('');
  return `frames = [\n${listing}]\nfor answer in client.classify(${python(model)}, frames=[frames]):\n    print(answer.best)`;
}

const PYTHON = {
  Classify: (m) => (m.frames ? classifyFrames(m) : classifyTexts(m)),
  Tag: (m) => `for text in client.tag(${python(m.model)}, ${python(m.items.map((item) => item.text))}):\n    print([(token.text, token.label) for token in text.tokens])`,
  StreamTag: (m) => `for chunk in client.stream_tag(${python(m.model)}, ${python(m.words)}):\n    print([(token.text, token.label) for token in chunk.tokens])`,
  Fill: (m) => `for blank in client.fill(${python(m.model)}, ${python(m.texts)}):\n    print(blank.words)`,
  Score: (m) => `for scored in client.score(${listed([python(m.model), python(m.items.map((item) => item.text)), ...scoredGiven(m.items)])}):\n    print(${m.items[0].choices ? '[choice.probability for choice in scored.choices]' : 'scored.log_probability'})`,
  Forecast: ({ model, series, ...rest }) => `series = [Series(${python(series[0].values)}${series[0].start ? `, start=${python(series[0].start)}` : ''})]\nfor chunk in client.forecast(${listed([python(model), 'series', ...keywords(rest)])}):\n    for step in chunk.steps:\n        print(step)`,
  Generate: (m) => `for chunk in client.generate(${listed([python(m.model), ...generateKeywords(m)])}):\n    print(chunk.text, end="", flush=True)`,
};

function scoredGiven([item]) {
  const { source, vector, choices: ways } = item;
  return [
    ...(source !== undefined ? [`sources=${python([source])}`] : []), ...(vector ? [`vectors=${python([known(vector)])}`] : []),
    ...(ways ? [`choices=${python(ways)}`] : []),
  ];
}

function asPython(method, message) {
  const body = PYTHON[method](message);
  const names = ['Client', ...(body.includes('Beam(') ? ['Beam'] : []), ...(body.includes('Series(') ? ['Series'] : [])];
  return `from unroll import ${names.sort().join(', ')}\n\nwith Client("${location.host}") as client:\n${body.replace(/^/gm, '    ')}`;
}

function asCurl(method, message) {
  const url = `${location.origin}/${SERVICE}/${method}`;
  const json = JSON.stringify(message);
  if (!STREAMS.has(method)) return `curl --json ${shell(json)} ${url}`;
  // An envelope: a byte of flags and four of the length before the message.
  const size = new TextEncoder().encode(json).length;
  const head = [24, 16, 8, 0].map((bits) => `\\${((size >>> bits) & 255).toString(8).padStart(3, '0')}`).join('');
  return `printf '\\000${head}%s' ${shell(json)} |\n  curl -sN -H 'Content-Type: application/connect+json' --data-binary @- --output - ${url}`;
}

function asGrpcurl(method, message) {
  const plain = location.protocol === 'https:' ? '' : '-plaintext ';
  return `grpcurl ${plain}-d ${shell(JSON.stringify(message))} ${location.host} ${SERVICE}/${method}`;
}

/** `call`: [method, message] as the form has it now. update() shows it anew. */
export function callBox(call) {
  return codeBox([
    ['Python', () => asPython(...call())], ['curl', () => asCurl(...call())], ['grpcurl', () => asGrpcurl(...call())],
  ]);
}

/** `ways`: [name, text()] each. */
export function codeBox(ways) {
  const code = h('code');
  const pre = h('pre', { tabindex: '0', 'aria-label': 'The call' }, code);
  const said = h('span', { class: 'hint', role: 'status' });
  let way = ways[0][0];
  const update = () => { code.textContent = ways.find(([name]) => name === way)[1](); said.textContent = ''; };
  const tabs = choices('Language', ways.map(([name]) => [name, name]), (name) => { way = name; update(); });
  const copy = h('button', { type: 'button', class: 'quiet', onclick: async () => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      said.textContent = 'Copied';
    } catch {
      getSelection().selectAllChildren(code);
      said.textContent = 'Selected: copy it with Ctrl+C';
    }
  } }, 'Copy');
  const element = h('section', { class: 'call' },
    h('div', { class: 'row' }, h('h3', {}, 'This call'), tabs, h('span', { class: 'grow' }), said, copy), pre);
  return { element, update };
}
