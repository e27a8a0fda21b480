// Forecast: how a series may go on, as a fan of quantiles that grows step by step.
import { field, h, s } from './dom.js';
import { stream } from './connect.js';
import { answering } from './form.js';
import { example } from './examples.js';

const QUANTILES = [0.05, 0.25, 0.5, 0.75, 0.95];
const [WIDTH, HEIGHT, LEFT, BOTTOM] = [720, 300, 48, 24];

const numbers = (text) => text.split(/[\s,;]+/).filter(Boolean).map(Number);

export function forecastView(model, signal) {
  const sample = example(model);
  const area = h('textarea', { rows: 5, spellcheck: 'false' });
  area.value = sample.values.join(', ');
  const start = h('input', { type: 'text', value: sample.start, placeholder: 'none', autocomplete: 'off' });
  const most = model.forecaster?.horizon ?? model.limits?.horizon;
  const horizon = h('input', { type: 'number', min: 1, max: most, value: Math.min(24, most) });
  const samples = h('input', { type: 'number', min: 2, max: 1024, value: 200 });
  const request = () => ({
    model: model.name, series: [{ values: numbers(area.value), ...(start.value ? { start: start.value } : {}) }],
    horizon: Number(horizon.value), samples: Number(samples.value), quantiles: QUANTILES,
  });
  return answering({
    signal,
    fields: [field('Values', area, `Oldest first; step ${model.forecaster?.frequency ?? ''}, at least ${model.forecaster?.leastContext ?? 1} values.`),
      h('div', { class: 'pair' }, field('Start', start), field('Steps', horizon)),
      field('Ways to go on', samples, 'So many are drawn; the fan shows between which values they lie.')],
    button: 'Forecast',
    hint: 'The series and its fan appear here.',
    call: () => ['Forecast', request()],
    answer: async (own) => {
      const asked = request();
      const picture = fan(asked.series[0].values, asked.horizon);
      const steps = [];
      draw();
      async function draw() {
        try {
          for await (const message of stream('Forecast', asked, own)) {
            steps.push(...(message.steps ?? []));
            picture.draw(steps);
          }
        } catch (error) {
          if (error.name !== 'AbortError') picture.fail(error);
        }
      }
      return picture.element;
    },
  }).element;
}

function fan(values, horizon) {
  const known = values.filter(Number.isFinite);
  const image = s('svg', { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': 'Series and forecast' });
  const said = h('p', { class: 'status', role: 'status' }, 'Drawing …');
  const element = h('figure', { class: 'fan' }, image, said,
    h('p', { class: 'legend' }, h('span', { class: 'wide' }, '5 to 95 %'), h('span', { class: 'narrow' }, '25 to 75 %'), h('span', { class: 'median' }, 'median')));
  const total = values.length + horizon - 1;
  const draw = (steps) => {
    const all = [...known, ...steps.flatMap((step) => step.quantiles)];
    const [least, most] = [Math.min(...all), Math.max(...all)];
    const room = (most - least || 1) * 0.08;
    const x = (n) => LEFT + ((WIDTH - LEFT - 8) * n) / total;
    const y = (value) => HEIGHT - BOTTOM - ((HEIGHT - BOTTOM - 8) * (value - least + room)) / (most - least + 2 * room || 1);
    const at = (step) => x(values.length + (step.position ?? 0));
    const last = [values.length - 1, known.at(-1)];
    const band = (low, high, name) => s('path', {
      class: name,
      d: `M${x(last[0])},${y(last[1])}${steps.map((step) => `L${at(step)},${y(step.quantiles[high])}`).join('')}${[...steps].reverse().map((step) => `L${at(step)},${y(step.quantiles[low])}`).join('')}Z`,
    });
    const line = (name, points) => s('path', { class: name, d: points.map(([a, b], n) => `${n ? 'L' : 'M'}${a},${b}`).join('') });
    const ticks = [least, (least + most) / 2, most].map((value) => s('g', {},
      s('line', { class: 'grid', x1: LEFT, x2: WIDTH, y1: y(value), y2: y(value) }),
      s('text', { x: LEFT - 6, y: y(value) + 4, 'text-anchor': 'end' }, Number(value.toPrecision(3)).toLocaleString('en'))));
    const history = values.map((value, n) => [x(n), y(value)]).filter(([, b]) => Number.isFinite(b));
    image.replaceChildren(...ticks, ...(steps.length ? [band(0, 4, 'wide'), band(1, 3, 'narrow'),
      line('median', [[x(last[0]), y(last[1])], ...steps.map((step) => [at(step), y(step.quantiles[2])])])] : []),
    line('history', history));
    if (steps.length) {
      const end = steps.at(-1);
      said.textContent = `${steps.length} of ${horizon} steps; the last${end.time ? ` (${end.time})` : ''}: median ${end.quantiles[2].toPrecision(4)}, 90 % between ${end.quantiles[0].toPrecision(4)} and ${end.quantiles[4].toPrecision(4)}.`;
    }
  };
  draw([]);
  return { element, draw, fail: (error) => { said.textContent = `${error.title}: ${error.message}`; } };
}
