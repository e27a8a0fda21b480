// The page: which model, which view of it.
import { h, refusal, show } from './dom.js';
import { Refused, setToken, unary } from './connect.js';
import { cardView, kindOf } from './card.js';
import { classifyView } from './classify.js';
import { embedView } from './embed.js';
import { tagView } from './tag.js';
import { fillView } from './fill.js';
import { generateView } from './generate.js';
import { nextView } from './next.js';
import { scoreView } from './score.js';
import { beamView } from './beam.js';
import { forecastView } from './forecast.js';
import { manyView } from './many.js';
import { stepView } from './step.js';
import { framesStepView } from './steps.js';
import { hideTip } from './tokens.js';

const CARD = ['card', 'Card', cardView];
const EMBED = ['embed', 'Embed', embedView];
const WRITES = [['generate', 'Generate', generateView], ['beam', 'Beam search', beamView], ['next', 'Next token', nextView], ['score', 'Score', scoreView], ['many', 'Many streams', manyView]];
const VIEWS = {
  TASK_GENERATE: WRITES,
  TASK_SEQ2SEQ: WRITES,
  TASK_VECTOR_TO_SEQUENCE: WRITES,
  TASK_CLASSIFY: [['classify', 'Classify', classifyView]],
  TASK_TAG: [['tag', 'Tag', tagView]],
  TASK_FILL: [['fill', 'Fill in', fillView]],
  TASK_FORECAST: [['forecast', 'Forecast', forecastView]],
  TASK_STEP: [['step', 'Step', stepView]],
};

/** [key, text, view(model, signal)] each. */
function viewsOf(model) {
  const views = VIEWS[model.task] ?? [];
  const stepped = model.stepper && model.task === 'TASK_CLASSIFY' ? [['step', 'Step', framesStepView]] : [];
  return [...views, ...stepped, ...(model.embeds ? [EMBED] : []), CARD];
}

const ORDER = ['TASK_GENERATE', 'TASK_SEQ2SEQ', 'TASK_VECTOR_TO_SEQUENCE', 'TASK_CLASSIFY', 'TASK_TAG', 'TASK_FILL', 'TASK_FORECAST', 'TASK_STEP'];

const main = document.getElementById('main');
const nav = document.getElementById('models');
let models = [];
let view = new AbortController();

async function load() {
  try {
    const listed = await unary('ListModels', {});
    models = (listed.models ?? []).toSorted((a, b) => ORDER.indexOf(a.task) - ORDER.indexOf(b.task) || a.name.localeCompare(b.name));
    list(listed.refusedModels ?? []);
    route();
  } catch (error) {
    if (error instanceof Refused && error.code === 'unauthenticated') askForToken(error);
    else show(main, refusal(error), h('button', { type: 'button', onclick: load }, 'Try again'));
  }
}

function list(refused) {
  show(nav, h('ul', {}, models.map((model) => h('li', {}, h('a', { href: `#/${encodeURIComponent(model.name)}` },
    h('span', { class: 'name' }, model.name), h('small', {}, kindOf(model))))),
  refused.map((model) => h('li', { class: 'refused' }, h('span', { class: 'name' }, model.name), h('small', {}, `refused: ${model.reason}`)))));
}

function route() {
  view.abort();
  view = new AbortController();
  hideTip();
  const [name, tab] = location.hash.replace(/^#\//, '').split('/').map(decodeURIComponent);
  const model = models.find((one) => one.name === name) ?? (name ? null : models[0]);
  for (const link of nav.querySelectorAll('a')) {
    if (model && link.hash === `#/${encodeURIComponent(model.name)}`) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (!model) {
    show(main, refusal(new Refused('not_found', name ? `No model ${name} is served here.` : 'No model is served here.')));
    return;
  }
  document.title = `${model.name} · Unroll`;
  const views = viewsOf(model);
  const [key, , make] = views.find(([one]) => one === tab) ?? views[0];
  show(main, h('div', { class: 'head' }, h('h1', {}, model.name), h('p', {}, model.description)),
    h('div', { class: 'tabs', role: 'navigation', 'aria-label': `Views of ${model.name}` }, views.map(([one, text]) => h('a', {
      href: `#/${encodeURIComponent(model.name)}/${one}`, 'aria-current': one === key ? 'page' : null }, text))),
    make(model, view.signal));
}

function askForToken(error) {
  const input = h('input', { type: 'password', autocomplete: 'off' });
  const form = h('form', { class: 'form narrow', onsubmit: (event) => { event.preventDefault(); setToken(input.value.trim()); load(); } },
    h('div', { class: 'field' }, h('label', { for: 'bearer' }, 'Bearer token'), input, h('p', { class: 'hint' }, 'Kept by this page alone, until it is closed.')),
    h('div', { class: 'buttons' }, h('button', { type: 'submit', class: 'main' }, 'Use it')));
  input.id = 'bearer';
  show(main, error && refusal(error), form);
  input.focus();
}

const THEMES = ['system', 'light', 'dark'];
const theme = document.getElementById('theme');
function setTheme(name) {
  document.documentElement.dataset.theme = name;
  theme.textContent = `Theme: ${name}`;
  dispatchEvent(new Event('themechange'));
}
theme.addEventListener('click', () => {
  const next = THEMES[(THEMES.indexOf(document.documentElement.dataset.theme) + 1) % THEMES.length];
  setTheme(next);
  localStorage.setItem('theme', next);
});
setTheme(THEMES.find((name) => name === localStorage.getItem('theme')) ?? 'system');
document.getElementById('token').addEventListener('click', () => askForToken());
document.querySelector('.skip').addEventListener('click', (event) => { event.preventDefault(); main.focus(); });
addEventListener('hashchange', route);
load();
