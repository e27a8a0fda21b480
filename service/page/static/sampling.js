// The controls of sampling, with what each means. Only what differs from the model's own is sent.
import { field, h } from './dom.js';

const RANGES = [
  // name, label, least, most, step, meaning; the first four are always in sight.
  ['temperature', 'Temperature', 0, 2, 0.05, 'Divides the logits: below 1 the likely becomes likelier. 0 takes the likeliest token every time.'],
  ['topP', 'Top p', 0.05, 1, 0.05, 'Draws among the likeliest tokens that together reach this probability. 1: all.'],
  ['topK', 'Top k', 0, 100, 1, 'Draws among so many of the likeliest tokens. 0: all.'],
  ['minP', 'Min p', 0, 0.95, 0.05, 'Leaves out tokens less than this many times as probable as the likeliest. 0: none.'],
  ['typicalP', 'Typical p', 0.05, 1, 0.05, 'Draws among tokens whose surprise is near the expected one. 1: all.'],
  ['repetitionPenalty', 'Repetition penalty', 0.5, 2, 0.05, 'Above 1, what prompt or stream holds already becomes less likely.'],
  ['frequencyPenalty', 'Frequency penalty', -2, 2, 0.1, 'Taken from a token’s logit for each time the stream made it.'],
  ['presencePenalty', 'Presence penalty', -2, 2, 0.1, 'Taken once from the logit of a token that the stream made.'],
];
const IN_SIGHT = 3;
const NEUTRAL = { temperature: 1, topP: 1, topK: 0, minP: 0, typicalP: 1, repetitionPenalty: 1, frequencyPenalty: 0, presencePenalty: 0 };
const tidy = (value) => Number(Number(value).toFixed(4));

/** element; sampling(): the preset and what differs from it and the model's defaults. */
export function samplingControls(model) {
  const presets = model.presets ?? {};
  const controls = RANGES.map((range) => control(range));
  const own = () => ({ ...NEUTRAL, ...model.defaultSampling, ...presets[preset.value] });
  const preset = h('select', { onchange: () => controls.forEach((one) => one.reset(own())) },
    h('option', { value: '' }, 'the model’s own'), Object.keys(presets).sort().map((name) => h('option', { value: name }, name)));
  controls.forEach((one) => one.reset(own()));
  const seed = h('input', { type: 'number', min: 0, step: 1, placeholder: 'drawn by the server', autocomplete: 'off' });
  const element = h('div', { class: 'sampling' },
    Object.keys(presets).length ? field('Preset', preset, 'Sampling parameters that the server keeps by name; what is changed below comes before them.') : null,
    controls.slice(0, IN_SIGHT).map((one) => one.element),
    field('Seed', seed, 'The same request with the same seed gives the same text, whatever else the server does.'),
    h('details', {}, h('summary', {}, 'More ways to draw'), controls.slice(IN_SIGHT).map((one) => one.element)));
  const sampling = () => {
    const chosen = Object.fromEntries(controls.filter((one) => one.isChosen()).map((one) => [one.name, one.value()]));
    if (seed.value !== '') chosen.seed = seed.value;
    return { ...(preset.value ? { preset: preset.value } : {}), ...(Object.keys(chosen).length ? { sampling: chosen } : {}) };
  };
  return { element, sampling, seed };
}

function control([name, label, least, most, step, meaning]) {
  let [own, isChanged] = [0, false];
  const input = h('input', { type: 'range', step });
  const output = h('output', {});
  const reset = (values) => {
    [own, isChanged] = [tidy(values[name]), false];
    input.min = Math.min(least, own);
    input.max = Math.max(most, own);
    input.value = own;
    output.value = String(own);
  };
  input.addEventListener('input', () => { isChanged = true; output.value = String(tidy(input.value)); });
  const element = field(label, input, meaning);
  element.querySelector('label').append(output);
  return { name, element, reset, value: () => tidy(input.value), isChosen: () => isChanged && tidy(input.value) !== own };
}
