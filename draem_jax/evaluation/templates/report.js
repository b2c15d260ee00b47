
'use strict';
// Names of files and types only ever become text nodes and attribute values here, never HTML.

const data = JSON.parse(document.getElementById('data').textContent);
const element = (id) => document.getElementById(id);
const made = (tag, className, text) => {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
};
const shortened = (value) => (Math.abs(value) < 1e-4 ? value.toExponential(2) : value.toPrecision(4));

const images = data.images.map(([name, type, label, score, hasMask], index) => ({
  index, name, type, score, hasMask,
  isDefective: label === 1,
  file: `${data.pictureFolder}/${String(index).padStart(5, '0')}.jpg`,
}));

// The axis of the histogram, as draem_jax.evaluation.charts has it.
const transformed = (value) => {
  if (data.axis.kind === 'linear') return value;
  const share = Math.min(Math.max(value, data.axis.low), data.axis.high);
  return Math.log(share / (1 - share));
};
const low = transformed(data.axis.low);
const high = transformed(data.axis.high);
const positionOf = (value) => Math.min(Math.max((transformed(value) - low) / (high - low), 0), 1);
const valueAt = (position) => {
  const value = low + position * (high - low);
  return data.axis.kind === 'linear' ? value : 1 / (1 + Math.exp(-value));
};

// One picture file holds all panels of an image side by side; each <img> shows one of them.
function panel(image, which, lazy) {
  if (data.panels[which] === 'ground truth' && !image.hasMask) {
    const missing = made('span', 'missing', 'no mask');
    missing.style.aspectRatio = `${data.width} / ${data.height}`;
    return missing;
  }
  const picture = document.createElement('img');
  if (lazy) picture.loading = 'lazy';
  picture.decoding = 'async';
  picture.width = data.width;
  picture.height = data.height;
  picture.style.aspectRatio = `${data.width} / ${data.height}`;
  picture.style.objectPosition = `${(100 * which) / (data.panels.length - 1)}% 0`;
  picture.alt = lazy ? '' : data.panels[which];
  picture.src = image.file;
  return picture;
}

function card(image) {
  const item = made('li', 'card');
  const button = made('button');
  button.type = 'button';
  button.setAttribute('aria-label', `Enlarge ${image.name}`);
  button.append(...data.cardPanels.map((which) => panel(image, which, true)));
  button.addEventListener('click', () => view(image));
  const text = made('p');
  image.verdict = made('span', 'verdict');
  text.append(
    made('bdi', 'file', image.name),
    made('span', 'score', image.score === null ? 'no score' : shortened(image.score)),
    made('bdi', 'kind', image.type),
    image.verdict,
  );
  item.append(button, text);
  return item;
}

const verdicts = { fp: '✕ false positive', fn: '✕ false negative', right: '✓ right', none: '✕ no score' };
let threshold = data.presets[0].value;
let shown = [];

function outcomeOf(image) {
  if (image.score === null) return 'none';
  const isCalled = image.score >= threshold;
  return isCalled === image.isDefective ? 'right' : isCalled ? 'fp' : 'fn';
}

function moveMarker(id, x, y) {
  const marker = document.querySelector(`#${id} .marker`);
  if (!marker) return;
  const isKnown = Number.isFinite(x) && Number.isFinite(y);
  marker.setAttribute('cx', isKnown ? 46 + 422 * x : -20);
  marker.setAttribute('cy', isKnown ? 30 + 228 * (1 - y) : -20);
}

function decide() {
  const counts = { tp: 0, fp: 0, tn: 0, fn: 0 };
  const found = new Map();
  for (const image of images) {
    const outcome = outcomeOf(image);
    if (outcome !== image.outcome) {
      image.outcome = outcome;
      image.card.dataset.outcome = outcome;
      image.verdict.textContent = verdicts[outcome];
    }
    if (outcome === 'none') continue;
    counts[outcome !== 'right' ? outcome : image.isDefective ? 'tp' : 'tn'] += 1;
    if (image.isDefective) {
      const [hits, all] = found.get(image.type) || [0, 0];
      found.set(image.type, [hits + (outcome === 'right'), all + 1]);
    }
  }
  const { tp, fp, tn, fn } = counts;
  const percent = (part, all) => (all ? `${((100 * part) / all).toFixed(1)} %` : '–');
  for (const [name, count] of Object.entries(counts)) element(name).textContent = count;
  element('tpr').textContent = percent(tp, tp + fn);
  element('tnr').textContent = percent(tn, tn + fp);
  element('accuracy').textContent = percent(tp + tn, tp + tn + fp + fn);
  for (const cell of document.querySelectorAll('[data-found-of-type]')) {
    const [hits, all] = found.get(cell.dataset.foundOfType) || [0, 0];
    cell.textContent = percent(hits, all).replace(' %', '');
  }
  moveMarker('roc', fp / (fp + tn), tp / (tp + fn));
  moveMarker('precision-recall', tp / (tp + fn), tp / (tp + fp));
  const position = positionOf(threshold);
  document.querySelector('#histogram .mark').setAttribute('transform', `translate(${46 + 422 * position} 0)`);
  for (const id of ['slider', 'slider-here']) {
    element(id).value = 1000 * position;
    element(id).setAttribute('aria-valuetext', shortened(threshold));
  }
  if (document.activeElement !== element('threshold')) element('threshold').value = shortened(threshold);
  element('threshold-here').textContent = shortened(threshold);
}

const compareNames = new Intl.Collator('en', { numeric: true }).compare;
const byScore = (a, b) => (a.score ?? Infinity) - (b.score ?? Infinity);
const distance = (image) => (image.score === null ? Infinity : Math.abs(positionOf(image.score) - positionOf(threshold)));
const orders = {
  high: (a, b) => byScore(b, a),
  low: byScore,
  near: (a, b) => distance(a) - distance(b),
  name: (a, b) => compareNames(a.name, b.name),
};

function sort() {
  images.sort((a, b) => orders[element('sort').value](a, b) || a.index - b.index);
  element('cards').append(...images.map((image) => image.card));
}

function filter() {
  const outcome = element('outcome').value;
  const option = element('type').selectedOptions[0];
  shown = images.filter(
    (image) => (outcome === 'all' || image.outcome === outcome) && (option.value === '' || image.type === option.dataset.name),
  );
  const isShown = new Set(shown);
  for (const image of images) image.card.hidden = !isShown.has(image);
  element('shown').textContent = `${shown.length} of ${images.length} images`;
}

let isWaiting = false;
function setThreshold(value) {
  threshold = value;
  if (isWaiting) return;
  isWaiting = true;
  requestAnimationFrame(() => {
    isWaiting = false;
    decide();
    if (element('sort').value === 'near') sort();
    filter();
  });
}

let viewed = null;
function view(image) {
  viewed = image;
  element('viewer-title').textContent = image.name;
  const score = image.score === null ? 'no score' : `score ${shortened(image.score)}`;
  element('viewer-facts').textContent = `${image.type} · ${score} · ${verdicts[image.outcome]}`;
  element('viewer-panels').replaceChildren(
    ...data.panels.map((name, which) => {
      const figure = made('figure');
      figure.append(panel(image, which, false), made('figcaption', '', name));
      return figure;
    }),
  );
  element('previous').disabled = shown[0] === image;
  element('next').disabled = shown[shown.length - 1] === image;
  if (!element('viewer').open) element('viewer').showModal();
}
function step(by) {
  const next = shown[shown.indexOf(viewed) + by];
  if (next) view(next);
}

for (const image of images) image.card = card(image);
decide();
sort();
filter();
for (const id of ['slider', 'slider-here']) {
  element(id).addEventListener('input', (event) => setThreshold(valueAt(event.target.value / 1000)));
}
element('threshold').addEventListener('input', (event) => {
  if (Number.isFinite(event.target.valueAsNumber)) setThreshold(event.target.valueAsNumber);
});
for (const button of document.querySelectorAll('[data-preset]')) {
  button.addEventListener('click', () => setThreshold(data.presets[button.dataset.preset].value));
}
element('sort').addEventListener('change', () => { sort(); filter(); });
element('outcome').addEventListener('change', filter);
element('type').addEventListener('change', filter);
document.querySelector('.toolbar').addEventListener('submit', (event) => event.preventDefault());
element('previous').addEventListener('click', () => step(-1));
element('next').addEventListener('click', () => step(1));
element('close').addEventListener('click', () => element('viewer').close());
element('viewer').addEventListener('close', () => viewed.card.querySelector('button').focus());
document.addEventListener('keydown', (event) => {
  if (!element('viewer').open) return;
  if (event.key === 'ArrowLeft') step(-1);
  if (event.key === 'ArrowRight') step(1);
});
