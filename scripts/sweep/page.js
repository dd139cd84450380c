'use strict';
// A row of the points opens its report, which lies packed with others at the end of the page.
let pieces = null;
const placeOf = new Map();
const unpacked = new Map();
function readPieces() {
  pieces = JSON.parse(document.getElementById('reports').textContent);
  pieces.forEach((piece, number) =>
    piece[0].forEach((key, place) => placeOf.set(key, [number, place])));
}
async function reportOf(key) {
  if (!pieces) readPieces();
  const [number, place] = placeOf.get(key);
  if (!unpacked.has(number)) {
    const bytes = Uint8Array.from(atob(pieces[number][1]), c => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream('deflate'));
    unpacked.set(number, JSON.parse(await new Response(stream).text()));
  }
  return unpacked.get(number)[place];
}
const make = (tag, ...children) => {
  const made = document.createElement(tag);
  made.append(...children);
  return made;
};
const shares = (title, parts) => {
  const whole = parts.reduce((sum, part) => sum + (part[1] || 0), 0) || 1;
  const rows = parts.map(([name, value, words]) => {
    const number = make('td', `${(100 * (value || 0) / whole).toFixed(1)} %`);
    number.className = 'n';
    return make('tr', make('th', name), number, make('td', words || ''));
  });
  return make('div', make('h4', title), make('table', make('tbody', ...rows)));
};
function shown(report) {
  const parts = [];
  const energy = (report.totals || report).energy;
  if (energy) parts.push(shares('Energy', energy.parts.map(p => [p.part, p.energy_pj, `${p.basis}: ${p.source}`])));
  if (report.critical_path && report.critical_path.length) parts.push(
    shares('Critical path', report.critical_path.map(s => [`${s.kind}: ${s.where}`, s.cycles, s.lane || ''])));
  for (const [name, stall] of Object.entries(report.stalls || {})) parts.push(
    shares(`Time of ${name}`, ['busy', 'starved', 'blocked', 'waiting', 'finished'].map(k => [k, stall[k]])));
  const grid = make('div', ...parts);
  grid.className = 'small';
  const whole = make('details', make('summary', 'The whole report'), make('pre', JSON.stringify(report, null, 1)));
  return make('div', grid, whole);
}
document.addEventListener('click', async event => {
  const row = event.target.closest('table.points tbody tr:not(.under)');
  if (!row || event.target.closest('.under')) return;
  if (row.classList.toggle('open')) {
    const cell = make('td', shown(await reportOf(row.cells[0].textContent)));
    cell.colSpan = row.cells.length;
    const under = make('tr', cell);
    under.className = 'under';
    if (row.classList.contains('open')) row.after(under);
  } else if (row.nextSibling && row.nextSibling.className === 'under') row.nextSibling.remove();
});
// The key of a point is a button for who has no mouse.
const buttons = () => {
  for (const code of document.querySelectorAll('table.points tbody th > code')) {
    const button = make('button', code.textContent);
    button.type = 'button';
    code.replaceWith(button);
  }
};
new MutationObserver(buttons).observe(document.querySelector('table.points tbody'), {childList: true});
buttons();
