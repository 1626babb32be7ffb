"use strict";
// A list of many rows, of which only those in view are in the page.

const ROW_HEIGHT = 20;

class Rows {
  // `fill(element, row)` fills an empty row; `choose(row, event)` is called on a click or Enter.
  constructor(container, fill, choose) {
    this.container = container;
    this.fill = fill;
    this.choose = choose;
    this.rows = [];
    this.spacer = document.createElement("div");
    container.append(this.spacer);
    this.shown = new Map();
    container.addEventListener("scroll", () => this.draw());
    new ResizeObserver(() => this.draw()).observe(container);
  }

  show(rows, keepPlace = false) {
    this.rows = rows;
    this.spacer.style.height = `${rows.length * ROW_HEIGHT}px`;
    if (!keepPlace) this.container.scrollTop = 0;
    this.redraw();
  }

  redraw() {
    for (const element of this.shown.values()) element.remove();
    this.shown.clear();
    this.draw();
  }

  draw() {
    const first = Math.max(0, Math.floor(this.container.scrollTop / ROW_HEIGHT) - 10);
    const last = Math.min(this.rows.length, first + Math.ceil(this.container.clientHeight / ROW_HEIGHT) + 20);
    for (const [index, element] of this.shown) {
      if (index < first || index >= last) {
        element.remove();
        this.shown.delete(index);
      }
    }
    for (let index = first; index < last; index++) {
      if (this.shown.has(index)) continue;
      const element = document.createElement("div");
      element.className = "row";
      element.style.top = `${index * ROW_HEIGHT}px`;
      this.fill(element, this.rows[index]);
      element.addEventListener("click", (event) => this.choose(this.rows[index], event));
      this.container.append(element);
      this.shown.set(index, element);
    }
  }

  reveal(index) {
    if (index < 0) return;
    const top = index * ROW_HEIGHT, height = this.container.clientHeight;
    if (top < this.container.scrollTop || top + ROW_HEIGHT > this.container.scrollTop + height) {
      this.container.scrollTop = Math.max(0, top - height / 2);
    }
    this.draw();
  }
}
