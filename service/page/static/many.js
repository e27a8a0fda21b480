// Many streams at once: how the batch fills, and what the server's own metrics say meanwhile.
import { field, h, plural, refusal, s, show } from './dom.js';
import { socket } from './connect.js';
import { modelInput } from './input.js';

const EVERY_MS = 500;
const MOST = 128;
const [WIDTH, HEIGHT] = [640, 90];

/** Samples of a Prometheus page: by name, of those of one model. */
export function readMetrics(page, model) {
  const found = {};
  for (const line of page.split('\n')) {
    const [, name, labels = '', value] = /^(\w+)(?:\{(.*)\})? (\S+)/.exec(line) ?? [];
    if (name && labels.split(',').includes(`model="${model}"`)) found[name] = (found[name] ?? 0) + Number(value);
  }
  return found;
}

/** Tokens that were made so far: the first ones, and those that followed. */
const made = (metrics) => (metrics.unroll_time_to_first_token_seconds_count ?? 0) + (metrics.unroll_inter_token_seconds_count ?? 0);

async function metricsOf(model, signal) {
  const response = await fetch('/metrics', { signal }).catch(() => null);
  return response?.ok ? readMetrics(await response.text(), model) : null;
}

export function manyView(model, signal) {
  const input = modelInput(model);
  const most = model.limits?.output_tokens;
  const count = h('input', { type: 'number', min: 1, max: MOST, value: 64 });
  const length = h('input', { type: 'number', min: 1, max: most, value: Math.min(200, most) });
  const grid = h('div', { class: 'streams', role: 'img', 'aria-label': 'Streams: one cell each, filled as it goes on' });
  const said = h('p', { class: 'status', role: 'status' }, 'Nothing started yet.');
  const problem = h('div');
  const rows = gauge('rows in the batch');
  const rate = gauge('tokens a second');
  const server = h('p', { class: 'hint' });
  const start = h('button', { type: 'submit', class: 'main' }, 'Start');
  const stop = h('button', { type: 'button', disabled: true, onclick: () => end() }, 'Stop');
  let calls = [];
  let timer = 0;
  const end = () => { calls.forEach((call) => call.close()); calls = []; clearInterval(timer); stop.disabled = true; };
  signal.addEventListener('abort', end);

  async function run() {
    end();
    show(problem);
    const asked = Number(length.value);
    const cells = Array.from({ length: Math.min(MOST, Number(count.value)) }, () => h('span', {}, h('span')));
    show(grid, cells);
    rows.clear(cells.length);
    rate.clear();
    stop.disabled = false;
    const before = await metricsOf(model.name, signal);
    const counts = { tokens: 0, first: [], left: cells.length, running: new Set() };
    // Together, once all are open: browsers open sockets one after the other.
    const opened = await openAll(cells, asked, counts);
    if (!opened) { end(); return; }
    const began = performance.now();
    calls.forEach((call, n) => call.send({ model: model.name, ...input.input(), maxTokens: asked, sampling: { seed: String(n + 1) } }));
    let last = { at: began, tokens: 0, metrics: before };
    const look = async () => {
      const metrics = await metricsOf(model.name, signal);
      const at = performance.now();
      const tokens = metrics && last.metrics ? made(metrics) - made(last.metrics) : counts.tokens - last.tokens;
      rate.add((1000 * tokens) / (at - last.at));
      rows.add(metrics ? metrics.unroll_active_rows ?? 0 : counts.running.size);
      last = { at, tokens: counts.tokens, metrics: metrics ?? last.metrics };
      report(counts, cells.length, (at - began) / 1000, before, metrics);
      if (!counts.left) end();
    };
    timer = setInterval(look, EVERY_MS);
  }

  /** Whether all of them are, and nobody has ended them meanwhile. */
  function openAll(cells, asked, counts) {
    return new Promise((resolve) => {
      let count = 0;
      const opened = () => {
        said.textContent = `${++count} of ${cells.length} connections open.`;
        if (count === cells.length) resolve(true);
      };
      const failed = () => resolve(false);
      calls = cells.map((cell, n) => open(cell, n, asked, counts, opened, failed));
    });
  }

  function open(cell, n, asked, counts, opened, failed) {
    let count = 0;
    return socket('Generate', {
      open: opened,
      message: ({ tokens = [], usage }) => {
        if (tokens.length) counts.running.add(n);
        count += tokens.length;
        counts.tokens += tokens.length;
        cell.firstChild.style.height = `${Math.min(100, (100 * count) / asked)}%`;
        if (usage?.timeToFirstTokenSeconds) counts.first.push(usage.timeToFirstTokenSeconds);
      },
      end: (error) => {
        counts.left -= 1;
        counts.running.delete(n);
        cell.className = error ? 'failed' : 'done';
        if (error) show(problem, refusal(error));
        failed();
      },
    });
  }

  function report(counts, streams, seconds, before, metrics) {
    const first = counts.first.toSorted((a, b) => a - b)[counts.first.length >> 1];
    said.textContent = `${plural(streams - counts.left, 'stream')} of ${streams} done, ${plural(counts.tokens, 'token')} in ${seconds.toFixed(1)} s`
      + `${first ? `; first token after ${Math.round(1000 * first)} ms (median, as the server reports it)` : ''}.`;
    if (!metrics) {
      server.textContent = 'The server’s metrics are not on this port (--metrics-on-port puts them there): rows and rate are what this page reads.';
      return;
    }
    const of = (name) => (metrics[name] ?? 0) - (before?.[name] ?? 0);
    const steps = of('unroll_decode_seconds_count');
    const firsts = of('unroll_time_to_first_token_seconds_count');
    server.textContent = `By the server’s own metrics: ${plural(made(metrics) - made(before ?? {}), 'token')} made`
      + `${firsts ? `, the first of a stream after ${Math.round((1000 * of('unroll_time_to_first_token_seconds_sum')) / firsts)} ms on average` : ''}`
      + `${steps ? `, a decode step takes ${((1000 * of('unroll_decode_seconds_sum')) / steps).toFixed(2)} ms` : ''}`
      + `, ${metrics.unroll_waiting_requests ?? 0} waiting.`;
  }

  const form = h('form', { class: 'form', onsubmit: (event) => { event.preventDefault(); run(); } }, input.element,
    h('div', { class: 'pair' }, field('Streams', count), field('Tokens each', length)),
    h('div', { class: 'buttons' }, start, stop),
    h('p', { class: 'hint' }, 'Each stream is a call of its own with a seed of its own; the server runs them as rows of one batch.'));
  return h('div', { class: 'task' }, form, h('div', { class: 'answers' }, problem, grid, said, h('div', { class: 'gauges' }, rows.element, rate.element), server));
}

function gauge(name) {
  const image = s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: 'none', 'aria-hidden': 'true' });
  const now = h('strong', {}, '–');
  let values = [];
  let least = 1;
  const draw = () => {
    const top = Math.max(least, ...values);
    const step = WIDTH / Math.max(20, values.length - 1);
    const points = values.map((value, n) => `${n * step},${HEIGHT - 2 - ((HEIGHT - 6) * value) / top}`);
    image.replaceChildren(s('polyline', { points: points.join(' ') }));
  };
  return {
    element: h('figure', { class: 'gauge' }, h('figcaption', {}, now, ` ${name}`), image),
    clear: (top = 1) => { values = []; least = top; now.textContent = '–'; draw(); },
    add: (value) => { values.push(value); now.textContent = Math.round(value).toLocaleString('en'); draw(); },
  };
}
