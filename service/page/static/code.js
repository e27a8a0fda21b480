// A call as Python, curl and grpcurl, to copy.
import { choices, h } from './dom.js';
import { SERVICE } from './connect.js';

const snake = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const shell = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const MOST_COLUMNS = 60;
const STREAMS = new Set(['Generate', 'Forecast', 'StreamTag', 'StreamStep']);

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

const scored = (m) => `for scored in client.score(${listed([python(m.model), python(m.items.map((item) => item.text)), ...scoredGiven(m.items)])}):\n    print(${m.items[0].choices ? '[choice.probability for choice in scored.choices]' : 'scored.log_probability'})`;

const nextTokens = ({ model, items }) => `for tokens in client.next_tokens(${listed([python(model), python(items.map((item) => item.text)), ...scoredGiven(items), `top=${items[0].topNextTokens}`])}):\n    for token in tokens:\n        print(token.text, token.log_probability)`;

// Of methods that take several messages: the start, then parts.
const options = ({ model, typed, ...rest }) => keywords(rest);

function streamTag([{ start }, ...parts]) {
  return `for chunk in client.stream_tag(${listed([python(start.model), python(parts.map(({ text }) => text)), ...options(start)])}):\n    print([(token.text, token.label) for token in chunk.tokens])`;
}

const TYPES = { floats: 'np.float32', doubles: 'np.float64' };

function streamStep([{ start }, ...parts]) {
  const inputs = parts.map(({ frame }) => frame.inputs[0]);
  return `${inputs[0]?.raw ? rawFrames(inputs) : typedFrames(inputs)}\nfor chunk in client.stream_step(${listed([python(start.model), 'frames', ...options(start)])}):\n    for result in chunk.results:\n        print(result.position, result.outputs)`;
}

const rawFrames = (inputs) => `frames = [\n${inputs.map(({ raw }) => `    np.frombuffer(base64.b64decode("${raw}"), np.float32),\n`).join('')}]`;

function typedFrames(inputs) {
  const kind = ['floats', 'doubles', 'integers'].find((name) => inputs[0]?.[name]) ?? 'floats';
  const shape = inputs[0]?.shape.slice(1) ?? [];
  const rows = inputs.map((input) => `    ${python(input[kind])},\n`).join('');
  return `frames = np.array([\n${rows}], ${TYPES[kind] ?? 'np.int64'})${shape.length === 1 ? '' : `.reshape(${[-1, ...shape].join(', ')})`}`;
}

const PYTHON = {
  Classify: (m) => (m.frames ? classifyFrames(m) : classifyTexts(m)),
  Tag: (m) => `for text in client.tag(${python(m.model)}, ${python(m.items.map((item) => item.text))}):\n    print([(token.text, token.label) for token in text.tokens])`,
  StreamTag: streamTag,
  StreamStep: streamStep,
  Fill: (m) => `for blank in client.fill(${python(m.model)}, ${python(m.texts)}):\n    print(blank.words)`,
  Embed: (m) => `for embedding in client.embed(${listed([python(m.model), python(m.texts)])}):\n    print(embedding.values)`,
  Score: (m) => (m.items[0].topNextTokens ? nextTokens(m) : scored(m)),
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
  const imports = [['base64.', 'import base64\n\n'], ['np.', 'import numpy as np\n\n']].filter(([use]) => body.includes(use)).map(([, line]) => line);
  return `${imports.join('')}from unroll import ${names.sort().join(', ')}\n\nwith Client("${location.host}") as client:\n${body.replace(/^/gm, '    ')}`;
}

/** What stands before a message of a stream: a byte of flags and four of its length, for printf. */
function envelopeOf(text) {
  const size = new TextEncoder().encode(text).length;
  return [0, size >>> 24, size >>> 16, size >>> 8, size].map((byte) => `\\${(byte & 255).toString(8).padStart(3, '0')}`).join('');
}

function asCurl(method, message) {
  const url = `${location.origin}/${SERVICE}/${method}`;
  const texts = [message].flat().map((one) => JSON.stringify(one));
  if (!STREAMS.has(method)) return `curl --json ${shell(texts[0])} ${url}`;
  const format = texts.map((text) => `${envelopeOf(text)}%s`).join('');
  return `printf '${format}' ${texts.map(shell).join(' ')} |\n  curl -sN -H 'Content-Type: application/connect+json' --data-binary @- --output - ${url}`;
}

function asGrpcurl(method, message) {
  const plain = location.protocol === 'https:' ? '' : '-plaintext ';
  return `grpcurl ${plain}-d ${shell([message].flat().map((one) => JSON.stringify(one)).join('\n'))} ${location.host} ${SERVICE}/${method}`;
}

/** `call`: [method, message] as the form has it now; a list of messages where the method takes several.
 *  update() shows it anew. others: [name, text()] each. */
export function callBox(call, others = []) {
  return codeBox([
    ['Python', () => asPython(...call())], ['curl', () => asCurl(...call())], ['grpcurl', () => asGrpcurl(...call())], ...others,
  ]);
}

function codeBox(ways) {
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
