"use strict";
// What is known of one node, and what the passes did to it.

function make(tag, text, parent, className) {
  const element = document.createElement(tag);
  if (text !== undefined) element.textContent = text;
  if (className) element.className = className;
  if (parent) parent.append(element);
  return element;
}

// From which stage on a node was there, where its line changed, and from where on it is gone.
function historyOf(key, stages, texts) {
  const events = [];
  let last;
  stages.forEach((stage, index) => {
    const row = stage.rows.find((text) => texts[text].key === key);
    const text = row === undefined ? undefined : texts[row].text;
    if (text !== last) {
      const what = last === undefined ? (index ? "made" : "there from the start") : text === undefined ? "taken away" : "changed";
      events.push({ index, name: stage.name, what, text });
    }
    last = text;
  });
  return events;
}

function showDetails(panel, key, state) {
  panel.textContent = "";
  const { stages, texts } = state.data;
  const rows = stages[state.stage].rows.map((text) => texts[text]);
  const now = rows.find((text) => text.key === key);
  const known = now || texts.find((text) => text.key === key);
  if (!known) {
    make("p", "Choose a node to see its type, where it comes from, and what passes did to it.", panel, "nothing");
    return;
  }
  make("h2", known.op || "graph", panel);
  if (!now) make("p", "It is not there after this pass.", panel);
  const list = make("dl", undefined, panel);
  const entry = (name, value) => {
    if (!value) return;
    make("dt", name, list);
    make("dd", value, list);
  };
  entry("Type", (known.types || []).join("\n"));
  entry("Source module", known.source);
  entry("Made by", known.by);
  make("h3", "Line", panel);
  make("pre", known.text, panel);
  const drawn = state.drawing.byKey && state.drawing.byKey.get(key);
  if (now && drawn) {
    wires("Operands from", drawn.in);
    wires("Used by", drawn.out);
  }
  make("h3", "History", panel);
  for (const event of historyOf(key, stages, texts)) {
    const button = make("button", `${event.index} ${event.name}: ${event.what}`, panel);
    button.addEventListener("click", () => state.goTo(event.index));
    if (event.text && event.what === "changed") make("pre", event.text, panel);
  }

  function wires(title, nodes) {
    if (!nodes.length) return;
    make("h3", title, panel);
    for (const node of nodes) {
      const button = make("button", `${node.text.op}  ${(node.text.types || [])[0] || ""}`, panel);
      button.addEventListener("click", () => state.choose(node.key, true));
    }
  }
}
