"use strict";
// The rows of a side-by-side diff. Lines are paired by the node that they are of, not by how they look.

function diffRows(before, after) {
  const here = new Set(before.map((line) => line.key)), there = new Set(after.map((line) => line.key));
  const moved = new Set(), rows = [];
  let i = 0, j = 0;
  while (i < before.length || j < after.length) {
    const removed = [], added = [];
    while (i < before.length && !there.has(before[i].key)) removed.push(before[i++]);
    while (j < after.length && (!here.has(after[j].key) || moved.has(after[j].key))) added.push(after[j++]);
    for (let k = 0; k < Math.max(removed.length, added.length); k++) {
      rows.push({ left: removed[k], right: added[k], changed: true });
    }
    if (removed.length || added.length || i >= before.length) continue;
    if (j < after.length && before[i].key === after[j].key) {
      const changed = before[i].text !== after[j].text;
      rows.push({ left: before[i++], right: after[j++], changed });
    } else {
      // It stands elsewhere now: it shows as taken away here and put in there.
      moved.add(before[i].key);
      rows.push({ left: before[i++], right: undefined, changed: true });
    }
  }
  return rows;
}

// Leaves out what is far from any change.
function onlyChanges(rows, context = 2) {
  const near = new Array(rows.length).fill(false);
  rows.forEach((row, index) => {
    if (!row.changed) return;
    for (let k = Math.max(0, index - context); k <= Math.min(rows.length - 1, index + context); k++) near[k] = true;
  });
  const kept = [];
  let gap = 0;
  const close = () => {
    if (gap) kept.push({ gap });
    gap = 0;
  };
  rows.forEach((row, index) => {
    if (!near[index]) {
      gap++;
      return;
    }
    close();
    kept.push(row);
  });
  close();
  return kept;
}
