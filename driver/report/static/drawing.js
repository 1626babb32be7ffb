"use strict";
// The graph on a canvas: only what is in view is drawn, and text only where it can be read.

const COLUMN = 200, LAYER = 66, BOX_WIDTH = 180, BOX_HEIGHT = 42;
// White text on each of these has a contrast of at least 4.5.
const COLOURS = {
  aten: "#2b5d9b", det: "#a6430a", instances: "#6a3fa0", onnx: "#1f6b3a", caffe2: "#0b6670", torchvision: "#9b2763",
  input: "#4a5560", output: "#4a5560",
};
const OTHER = "#5b4b3a";

const dialectOf = (op) => op.split(".")[0];
const colourOf = (op) => COLOURS[dialectOf(op)] || OTHER;

class Drawing {
  // `choose(key)` is called when a node is chosen.
  constructor(canvas, choose) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.choose = choose;
    this.nodes = [];
    this.scale = 1;
    this.x = this.y = 0;
    this.pointers = new Map();
    this.listen();
    new ResizeObserver(() => this.resize()).observe(canvas);
  }

  // `texts` are what the vertices show, in the order of the stage's vertices.
  show(stage, texts, keepPlace) {
    this.nodes = stage.vertices.map((key, index) => ({
      key, index, text: texts[index], in: [], out: [],
      x: stage.places[2 * index] * COLUMN, y: stage.places[2 * index + 1] * LAYER,
    }));
    this.edges = [];
    for (let k = 0; k < stage.edges.length; k += 2) {
      const from = this.nodes[stage.edges[k]], to = this.nodes[stage.edges[k + 1]];
      this.edges.push([from, to]);
      from.out.push(to);
      to.in.push(from);
    }
    this.byKey = new Map(this.nodes.map((node) => [node.key, node]));
    this.fitted = keepPlace && this.fitted;
    if (!this.fitted) this.start();
    this.draw();
  }

  // At first one sees the top, large enough to read.
  start() {
    const width = this.canvas.clientWidth;
    if (!width || !this.nodes.length) return;
    this.fitted = true;
    const top = this.nodes[0];
    this.scale = 0.8;
    this.x = top.x + BOX_WIDTH / 2 - width / 2 / this.scale;
    this.y = -20;
  }

  fit() {
    const xs = this.nodes.map((node) => node.x), ys = this.nodes.map((node) => node.y);
    const left = Math.min(...xs), top = Math.min(...ys);
    const width = Math.max(...xs) + BOX_WIDTH - left, height = Math.max(...ys) + BOX_HEIGHT - top;
    this.scale = Math.min(1, 0.95 * Math.min(this.canvas.clientWidth / width, this.canvas.clientHeight / height));
    this.x = left - (this.canvas.clientWidth / this.scale - width) / 2;
    this.y = top - (this.canvas.clientHeight / this.scale - height) / 2;
    this.draw();
  }

  select(key, reveal) {
    this.selected = this.byKey && this.byKey.get(key);
    if (reveal && this.selected) {
      this.x = this.selected.x + BOX_WIDTH / 2 - this.canvas.clientWidth / 2 / this.scale;
      this.y = this.selected.y + BOX_HEIGHT / 2 - this.canvas.clientHeight / 2 / this.scale;
    }
    this.draw();
  }

  highlight(found) {
    this.found = found;
    this.draw();
  }

  zoom(factor, px = this.canvas.clientWidth / 2, py = this.canvas.clientHeight / 2) {
    const scale = Math.min(3, Math.max(0.01, this.scale * factor));
    this.x += px / this.scale - px / scale;
    this.y += py / this.scale - py / scale;
    this.scale = scale;
    this.draw();
  }

  resize() {
    const ratio = window.devicePixelRatio || 1;
    this.canvas.width = this.canvas.clientWidth * ratio;
    this.canvas.height = this.canvas.clientHeight * ratio;
    if (!this.fitted) this.start();
    this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = requestAnimationFrame(() => {
      this.waiting = 0;
      this.paint();
    });
  }

  paint() {
    const c = this.context, ratio = window.devicePixelRatio || 1, style = getComputedStyle(document.documentElement);
    const line = style.getPropertyValue("--wire"), accent = style.getPropertyValue("--accent");
    const width = this.canvas.clientWidth / this.scale, height = this.canvas.clientHeight / this.scale;
    c.setTransform(ratio * this.scale, 0, 0, ratio * this.scale, -this.x * ratio * this.scale, -this.y * ratio * this.scale);
    c.clearRect(this.x, this.y, width, height);
    const inView = (node) => node.x + BOX_WIDTH > this.x && node.x < this.x + width && node.y + BOX_HEIGHT > this.y && node.y < this.y + height;
    const wires = (edges, colour, thick) => {
      c.strokeStyle = colour;
      c.lineWidth = thick / Math.max(this.scale, 0.3);
      c.beginPath();
      for (const [from, to] of edges) {
        const x0 = from.x + BOX_WIDTH / 2, y0 = from.y + BOX_HEIGHT, x1 = to.x + BOX_WIDTH / 2, y1 = to.y;
        if (y1 < this.y || y0 > this.y + height || Math.max(x0, x1) < this.x || Math.min(x0, x1) > this.x + width) continue;
        c.moveTo(x0, y0);
        if (this.scale < 0.25) c.lineTo(x1, y1);
        else c.bezierCurveTo(x0, y0 + 24, x1, y1 - 24, x1, y1);
      }
      c.stroke();
    };
    wires(this.edges || [], line, 1);
    if (this.selected) {
      const near = (this.edges || []).filter((edge) => edge.includes(this.selected));
      wires(near, accent, 2);
    }
    c.textBaseline = "middle";
    for (const node of this.nodes) {
      if (!inView(node)) continue;
      c.globalAlpha = this.found && !this.found.has(node.key) ? 0.25 : 1;
      c.fillStyle = colourOf(node.text.op);
      c.beginPath();
      c.roundRect(node.x, node.y, BOX_WIDTH, BOX_HEIGHT, 6);
      c.fill();
      if (node === this.selected) {
        c.strokeStyle = accent;
        c.lineWidth = 4;
        c.stroke();
      }
      if (this.scale > 0.3) this.label(node);
    }
    c.globalAlpha = 1;
  }

  label(node) {
    const c = this.context;
    c.fillStyle = "#ffffff";
    c.font = "600 13px system-ui, sans-serif";
    c.fillText(this.clipped(node.text.op), node.x + 8, node.y + 14);
    c.font = "11px ui-monospace, monospace";
    c.fillText(this.clipped((node.text.types || [])[0] || ""), node.x + 8, node.y + 31);
  }

  clipped(text) {
    const c = this.context, most = BOX_WIDTH - 16;
    if (c.measureText(text).width <= most) return text;
    let length = Math.floor((text.length * most) / c.measureText(text).width);
    while (length > 1 && c.measureText(text.slice(0, length) + "…").width > most) length--;
    return text.slice(0, length) + "…";
  }

  at(px, py) {
    const x = this.x + px / this.scale, y = this.y + py / this.scale;
    return this.nodes.find((n) => x >= n.x && x <= n.x + BOX_WIDTH && y >= n.y && y <= n.y + BOX_HEIGHT);
  }

  listen() {
    const canvas = this.canvas;
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      this.zoom(Math.exp(-event.deltaY * 0.0015), event.offsetX, event.offsetY);
    }, { passive: false });
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, [event.offsetX, event.offsetY]);
      this.travelled = 0;
    });
    canvas.addEventListener("pointermove", (event) => this.move(event));
    const up = (event) => {
      const known = this.pointers.delete(event.pointerId);
      if (known && event.type === "pointerup" && this.travelled < 5 && !this.pointers.size) {
        const node = this.at(event.offsetX, event.offsetY);
        if (node) this.choose(node.key);
      }
    };
    canvas.addEventListener("pointerup", up);
    canvas.addEventListener("pointercancel", up);
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  move(event) {
    const last = this.pointers.get(event.pointerId);
    if (!last) return;
    const now = [event.offsetX, event.offsetY];
    if (this.pointers.size === 2) {
      const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
      const distance = (p) => Math.hypot(p[0] - other[0], p[1] - other[1]);
      this.zoom(distance(now) / Math.max(distance(last), 1), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      this.travelled = 100;
    } else {
      this.x -= (now[0] - last[0]) / this.scale;
      this.y -= (now[1] - last[1]) / this.scale;
      this.travelled += Math.abs(now[0] - last[0]) + Math.abs(now[1] - last[1]);
      this.draw();
    }
    this.pointers.set(event.pointerId, now);
  }

  key(event) {
    const zooms = { "+": 1.25, "=": 1.25, "-": 0.8 };
    if (zooms[event.key]) this.zoom(zooms[event.key]);
    else if (event.key === "0") this.fit();
    else if (event.key.startsWith("Arrow") && this.nodes.length) this.step(event.key);
    else return;
    event.preventDefault();
  }

  // Up to an operand, down to a use, left and right within the layer.
  step(key) {
    const node = this.selected || this.nodes[0];
    let next = node;
    if (this.selected && key === "ArrowUp") next = node.in[0];
    if (this.selected && key === "ArrowDown") next = node.out[0];
    if (this.selected && (key === "ArrowLeft" || key === "ArrowRight")) {
      const layer = this.nodes.filter((other) => other.y === node.y).sort((a, b) => a.x - b.x);
      next = layer[layer.indexOf(node) + (key === "ArrowLeft" ? -1 : 1)];
    }
    if (next) this.choose(next.key, true);
  }
}
