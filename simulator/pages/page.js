'use strict';
// Tables sort by their headings and are filtered by words; without this script they are read as is.
const SHOWN = 200; // rows at a time of a table with very many
const valueOf = (row, place) => {
  const cell = row.cells[place];
  if (!cell) return null;
  if (cell.dataset.v !== undefined) return Number(cell.dataset.v);
  return cell.classList.contains('n') ? null : cell.textContent;
};
const compare = (a, b, sign) => {
  if (a === b) return 0;
  if (a === null) return 1;
  if (b === null) return -1;
  const both = typeof a === 'string' && typeof b === 'string';
  return sign * (both ? a.localeCompare(b, undefined, {numeric: true}) : a < b ? -1 : 1);
};

// `more` is {count, rows}: how many rows are not there yet, and what gives them once wanted.
function makeSortable(table, more) {
  const opens = table.tBodies.length > 1;
  const foot = table.tFoot;
  const held = Boolean(more);
  let units = opens ? [...table.tBodies] : [...table.tBodies[0].rows];
  const rowOf = unit => opens ? unit.rows[0] : unit;
  const texts = new Map();
  const text = unit => {
    if (!texts.has(unit)) texts.set(unit, rowOf(unit).textContent.toLowerCase());
    return texts.get(unit);
  };
  let kept = units, shown = held ? SHOWN : units.length;
  let count = null, further = null;

  const total = units.length + (held ? more.count : 0);
  const readAll = () => {
    if (!more) return;
    units = kept = [...units, ...more.rows()];
    more = null;
  };
  const fill = () => {
    const part = kept.slice(0, shown);
    if (opens) {
      for (const body of [...table.tBodies]) body.remove();
      for (const body of part) table.insertBefore(body, foot);
    } else table.tBodies[0].replaceChildren(...part);
    if (count) count.textContent = part.length < total
      ? `${part.length.toLocaleString('en')} of ${total.toLocaleString('en')} rows` : '';
    if (further) further.hidden = !more && part.length >= kept.length;
  };
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, place) => {
    if (head.classList.contains('drawn')) return; // bars: the number beside them sorts
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener('click', () => {
      readAll();
      const up = head.getAttribute('aria-sort') !== 'ascending';
      for (const each of heads) each.removeAttribute('aria-sort');
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      const keyed = units.map(unit => [valueOf(rowOf(unit), place), unit]);
      keyed.sort((a, b) => compare(a[0], b[0], up ? 1 : -1));
      units = keyed.map(pair => pair[1]);
      const among = new Set(kept);
      kept = units.filter(unit => among.has(unit));
      fill();
    });
  });
  if (units.length > 8) {
    const box = document.createElement('div');
    box.className = 'filter';
    const label = document.createElement('label');
    const input = document.createElement('input');
    input.type = 'search';
    label.append('Filter ', input);
    count = document.createElement('span');
    count.setAttribute('role', 'status');
    box.append(label, count);
    input.addEventListener('input', () => {
      readAll();
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      kept = units.filter(unit => words.every(word => text(unit).includes(word)));
      fill();
    });
    if (held) {
      further = document.createElement('button');
      further.type = 'button';
      further.textContent = `${SHOWN} more rows`;
      further.addEventListener('click', () => { readAll(); shown += SHOWN; fill(); });
      table.parentElement.after(further);
      const tail = document.createElement('div');
      tail.className = 'filter';
      further.replaceWith(tail);
      tail.append(further);
    }
    table.parentElement.before(box);
  }
  if (held || count) fill();
}
for (const table of document.querySelectorAll('table.data')) makeSortable(table);
// Very many rows lie in <noscript>, whole for who runs no script; a part of them is shown at a time.
for (const kept of document.querySelectorAll('noscript.rows')) {
  const [head, body] = kept.textContent.split('<tbody>');
  const [lines, tail] = body.split('</tbody>');
  const rows = lines.split('<tr>').slice(1);
  const parsed = some => {
    const made = document.createElement('template');
    made.innerHTML = `${head}<tbody>${some.map(row => `<tr>${row}`).join('')}</tbody>${tail}`;
    return made.content.querySelector('table');
  };
  const table = parsed(rows.slice(0, SHOWN));
  kept.replaceWith(table);
  const later = rows.slice(SHOWN);
  makeSortable(table, {count: later.length, rows: () => [...parsed(later).tBodies[0].rows]});
}

// What is closed is opened for the printer, and closed again after it.
let opened = [];
addEventListener('beforeprint', () => {
  opened = [...document.querySelectorAll('details.print:not([open])')];
  for (const each of opened) each.open = true;
});
addEventListener('afterprint', () => { for (const each of opened) each.open = false; });
