'use strict';
// Choices select a computed point; a model of any size is weighed against memories and bandwidths.
const points = JSON.parse(document.getElementById('points').textContent);
const names = ['machine', 'recipe', 'batch', 'context', 'bandwidth (times its own)'];
const byId = id => document.getElementById(id);
const most = key => Math.max(...points.map(point => point[key] || 0)) || 1;
const longest = most('s'), largest = most('pj');
const selects = names.map((name, place) => {
  const values = [...new Set(points.map(point => point.at[place]))];
  const select = document.createElement('select');
  for (const value of values) select.add(new Option(value));
  select.addEventListener('change', () => choose(place));
  if (values.length > 1) {
    const label = document.createElement('label');
    label.append(name, select);
    byId('controls').append(label);
  }
  return select;
});
// What is turned stays; of the points that have it, the one nearest to the other choices is shown.
function choose(turned) {
  const asked = selects.map(select => select.value);
  const among = points.filter(point => point.at[turned] === asked[turned]);
  const near = point => point.at.filter((value, place) => value === asked[place]).length;
  const chosen = among.reduce((best, point) => near(point) > near(best) ? point : best);
  chosen.at.forEach((value, place) => { selects[place].value = value; });
  show(chosen);
}
function show(point) {
  byId('chosen').textContent = point.at
    .map((value, place) => value === 'None' ? '' : `${names[place]} ${value}`)
    .filter(Boolean).join(', ') + (point.why ? `: not run, ${point.why}` : '');
  const told = point.told || {};
  const places = [['time'], ['energy', 'watts'], ['use'], ['bound'], ['dram', 'rate'], ['layers']];
  byId('facts').querySelectorAll('dd').forEach((cell, place) => {
    const [value, small] = places[place];
    cell.firstChild.textContent = told[value] || '–';
    if (small) cell.querySelector('small').textContent = told[small] || '';
  });
  byId('time-bar').style.width = `${100 * (point.s || 0) / longest}%`;
  byId('energy-bar').style.width = `${100 * (point.pj || 0) / largest}%`;
  if (byId('ring')) {
    byId('ring').setAttribute('d', point.dot ? `M${point.dot.replace(',', ' ')}h.01` : '');
    byId('roof').setAttribute('points', point.roof || '');
  }
}
const start = points.find(point => point.told);
start.at.forEach((value, place) => { selects[place].value = value; });
show(start);

// A table of sizes follows parameters and tokens a second.
const controls = byId('size-controls');
const limits = JSON.parse(controls.dataset.platforms);
const sizes = document.querySelector('.sizes');
const field = (label, value, step) => {
  const input = document.createElement('input');
  Object.assign(input, {type: 'number', min: '0', step, value});
  const around = document.createElement('label');
  around.append(label, input);
  controls.append(around);
  input.addEventListener('input', weigh);
  return input;
};
const inputs = [
  field('billions of parameters', String(sizes.dataset.parameters / 1e9), 'any'),
  field('tokens a second', controls.dataset.tokens, 'any'),
];
sizes.before(controls);
const withUnit = (value, unit) => {
  const scales = [[1e15, 'P'], [1e12, 'T'], [1e9, 'G'], [1e6, 'M'], [1e3, 'k'], [1, '']];
  const [size, prefix] = scales.find(scale => value >= scale[0] * 0.9995) || [1, ''];
  return `${Number((value / size).toPrecision(3))} ${prefix}${unit}`;
};
function weigh() {
  const [billions, tokens] = inputs.map(input => Number(input.value));
  sizes.querySelector('caption').textContent = `${billions} billion parameters`;
  for (const row of sizes.querySelectorAll('tbody tr')) {
    const bytes = billions * 1e9 * Number(row.cells[0].textContent) / 8;
    const rate = (bytes + 2 * sizes.dataset.cached) * tokens;
    const told = [withUnit(bytes, 'B'), `${(bytes / 1e10).toFixed(1)} %`,
      withUnit(rate, 'B/s'), `${(rate / 1e10).toFixed(1)} %`];
    told.forEach((words, place) => { row.cells[1 + place].textContent = words; });
    limits.forEach((limit, place) => {
      const span = document.createElement('span');
      span.className = bytes <= limit ? 'ok' : 'no';
      const times = Number((bytes / limit).toPrecision(bytes < 100 * limit ? 3 : 6));
      span.textContent = bytes <= limit ? 'fits'
        : `${times.toLocaleString('en', {maximumFractionDigits: 2})} times too large`;
      row.cells[5 + place].replaceChildren(span);
    });
  }
}
