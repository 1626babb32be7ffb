"use strict";
// The page: which pass, which view, which node.

const element = (id) => document.getElementById(id);
const VIEWS = ["ir", "diff", "graph", "rules", "parity"];

const state = {
  data: JSON.parse(element("data").textContent),
  stage: 0, view: "ir", chosenView: undefined, selected: undefined, query: "", goTo, choose,
};
const lines = (index) => state.data.stages[index].rows.map((text) => state.data.texts[text]);

const isFound = (text) => state.query && text.text.toLowerCase().includes(state.query);
const markOf = (text) => (text.key === state.selected ? "chosen" : isFound(text) ? "found" : "");

const ir = new Rows(element("ir-rows"), (row, text) => {
  row.textContent = text.text;
  row.title = text.text;
  row.className = `row ${markOf(text)}`;
}, (text) => choose(text.key));

const diff = new Rows(element("diff-rows"), (row, pair) => {
  if (pair.gap || pair.note) {
    row.className = "row gap";
    row.textContent = pair.note || `… ${pair.gap} unchanged`;
    return;
  }
  row.className = "row pair";
  for (const [text, kind] of [[pair.left, "removed"], [pair.right, "added"]]) {
    const half = make("div", text ? text.text : "", row, pair.changed && text ? kind : "");
    if (!text) continue;
    half.title = text.text;
    half.dataset.key = text.key;
    const mark = markOf(text);
    if (mark) half.classList.add(mark);
  }
}, (pair, event) => {
  if (pair.gap) {
    element("only-changes").checked = false;
    showDiff();
  } else if (event.target.dataset.key) choose(Number(event.target.dataset.key));
});

state.drawing = new Drawing(element("drawing"), (key, reveal) => choose(key, reveal));

function listPasses() {
  state.data.stages.forEach((stage, index) => {
    const item = make("li", undefined, element("passes"));
    item.id = `pass-${index}`;
    item.setAttribute("role", "option");
    make("span", index ? `${index} ${stage.name}` : `start: ${stage.name}`, item, "name");
    if (index && stage.ms !== undefined) {
      const change = stage.change ? `, nodes ${stage.change > 0 ? "+" : "−"}${Math.abs(stage.change)}` : "";
      make("span", `${stage.ms.toFixed(1)} ms${change}`, item, "numbers");
    }
    showVerdict(stage, item);
    item.addEventListener("click", () => goTo(index));
  });
  element("passes").addEventListener("keydown", (event) => {
    const last = state.data.stages.length - 1;
    const next = { ArrowDown: state.stage + 1, ArrowUp: state.stage - 1, Home: 0, End: last }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    goTo(Math.min(last, Math.max(0, next)));
  });
}

// How far the outputs are from the start, in a word.
function showVerdict(stage, item) {
  if (!stage.outputs) return;
  const differences = Object.values(stage.outputs);
  const worst = differences.find((value) => typeof value === "string") || Math.max(...differences);
  const word = differences.length ? (worst ? `±${shortened(worst)}` : "same") : "new reference";
  const astray = stage.astray.length ? `; astray inside: ${stage.astray.join(", ")}` : "";
  make("span", word, item, "verdict").title = `${listed(stage.outputs) || "what it gives is compared from here on"}${astray}`;
}

function goTo(index) {
  state.stage = index;
  // Until the reader chooses a view: what there is, and then what each pass did to it.
  state.view = state.chosenView || (index ? "diff" : "ir");
  for (const item of element("passes").children) item.setAttribute("aria-selected", item.id === `pass-${index}`);
  element("passes").setAttribute("aria-activedescendant", `pass-${index}`);
  element(`pass-${index}`).scrollIntoView({ block: "nearest" });
  const stage = state.data.stages[index];
  element("pass-name").textContent = stage.spec || `the graph at the level ${stage.name}`;
  element("pass-summary").textContent = stage.summary;
  element("pass-summary").title = stage.doc || "";
  show();
}

function show(keepPlace = false) {
  for (const view of VIEWS) {
    element(`view-${view}`).hidden = view !== state.view;
    const tab = element(`tab-${view}`);
    tab.setAttribute("aria-selected", view === state.view);
    tab.tabIndex = view === state.view ? 0 : -1;
  }
  const stage = state.data.stages[state.stage];
  const texts = new Map(lines(state.stage).map((text) => [text.key, text]));
  state.drawing.show(stage, stage.vertices.map((key) => texts.get(key)), true);
  state.drawing.select(state.selected);
  if (state.view === "diff") showDiff(keepPlace);
  if (state.view === "ir") ir.show(lines(state.stage), keepPlace);
  if (state.view === "rules") showRules(stage);
  if (state.view === "parity") showParity();
  showFound();
  showDetails(element("details"), state.selected, state);
  location.replace(`#${state.stage}${state.chosenView ? `/${state.chosenView}` : ""}`);
}

function showDiff(keepPlace = false) {
  if (!state.stage) {
    diff.show([{ note: "No pass has run yet: choose one to see what it changed." }]);
    return;
  }
  const rows = diffRows(lines(state.stage - 1), lines(state.stage));
  diff.show(element("only-changes").checked ? onlyChanges(rows) : rows, keepPlace);
}

function choose(key, reveal = false) {
  state.selected = key;
  if (state.view === "diff") diff.redraw();
  if (state.view === "ir") {
    ir.redraw();
    if (reveal) ir.reveal(ir.rows.findIndex((text) => text.key === key));
  }
  state.drawing.select(key, reveal);
  showDetails(element("details"), key, state);
}

function found() {
  return state.query ? lines(state.stage).filter(isFound) : [];
}

function showFound() {
  const texts = found();
  element("search-count").textContent = state.query ? `${texts.length} found` : "";
  state.drawing.highlight(state.query ? new Set(texts.map((text) => text.key)) : undefined);
}

function search(text) {
  state.query = text.trim().toLowerCase();
  if (state.view === "diff") diff.redraw();
  if (state.view === "ir") ir.redraw();
  showFound();
}

// Enter goes from one found line to the next.
function nextFound() {
  const texts = found();
  if (!texts.length) return;
  const at = texts.findIndex((text) => text.key === state.selected);
  if (state.view !== "graph" && state.view !== "ir") setView("ir");
  choose(texts[(at + 1) % texts.length].key, true);
}

function setView(view, focus = false) {
  state.view = state.chosenView = view;
  show();
  if (focus) element(`tab-${view}`).focus();
}

function showRules(stage) {
  const panel = element("view-rules");
  panel.textContent = "";
  if (!stage.rules || !stage.rules.length) {
    make("p", "This pass has no rewrite rules, or none of them was tried.", panel, "nothing");
    return;
  }
  const table = makeTable(panel, ["rule", "tried", "matched", "ms", "refused because"], [1, 2, 3]);
  for (const rule of stage.rules) {
    const why = rule.refused.map(([reason, count]) => `${count} × ${reason}`).join("\n");
    addRow(table, [rule.rule, rule.tried, rule.matched, rule.ms.toFixed(1), why], [1, 2, 3]);
  }
}

function showParity() {
  const panel = element("view-parity"), allowed = state.data.tolerances;
  panel.textContent = "";
  if (!allowed) {
    make("p", "The graph was not run. `detc report --check IMAGE` compares it with the start after each pass.", panel, "nothing");
    return;
  }
  make("p", `The largest difference from the start. Tensors: rtol ${allowed.rtol}, atol ${allowed.atol}; detections: IoU ${allowed.iou}, score ${allowed.score}; masks: 1 − IoU.`, panel);
  const table = makeTable(panel, ["pass", "outputs", "named values inside"], []);
  state.data.stages.forEach((stage, index) => {
    if (!stage.outputs) return;
    const outputs = listed(stage.outputs) || "the new reference";
    addRow(table, [`${index} ${stage.name}`, outputs, listed(stage.values, stage.astray)], []);
  });
}

function listed(values, astray = []) {
  return Object.entries(values || {})
    .map(([name, value]) => `${name} ${shortened(value)}${astray.includes(name) ? " (astray)" : ""}`).join(", ");
}

// Infinity and what is no number come as text.
const shortened = (value) => (typeof value === "number" ? value.toExponential(1) : value);

function makeTable(panel, headings, numbers) {
  const table = make("table", undefined, panel);
  const row = make("tr", undefined, make("thead", undefined, table));
  headings.forEach((heading, k) => {
    make("th", heading, row, numbers.includes(k) ? "number" : "").scope = "col";
  });
  return make("tbody", undefined, table);
}

function addRow(body, cells, numbers) {
  const row = make("tr", undefined, body);
  cells.forEach((cell, k) => {
    make("td", cell, row, numbers.includes(k) ? "number" : "").style.whiteSpace = "pre-line";
  });
}

function showLegend() {
  const dialects = new Set(state.data.texts.filter((text) => text.by).map((text) => dialectOf(text.op)));
  for (const dialect of dialects) {
    make("span", undefined, element("legend"), "swatch").style.background = colourOf(`${dialect}.`);
    make("span", dialect, element("legend"));
  }
}

listPasses();
showLegend();
for (const view of VIEWS) element(`tab-${view}`).addEventListener("click", () => setView(view));
element("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: VIEWS.length - 1 }[event.key];
  if (step) setView(VIEWS[(VIEWS.indexOf(state.view) + step) % VIEWS.length], true);
});
element("only-changes").addEventListener("change", () => showDiff());
element("search").addEventListener("input", (event) => search(event.target.value));
element("search-form").addEventListener("submit", (event) => {
  event.preventDefault();
  nextFound();
});
element("zoom-in").addEventListener("click", () => state.drawing.zoom(1.25));
element("zoom-out").addEventListener("click", () => state.drawing.zoom(0.8));
element("zoom-fit").addEventListener("click", () => state.drawing.fit());
const [first, view] = location.hash.slice(1).split("/");
if (VIEWS.includes(view)) state.chosenView = view;
goTo(Math.min(Number(first) || 0, state.data.stages.length - 1));
