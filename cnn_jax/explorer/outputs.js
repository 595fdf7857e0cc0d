"use strict";
// What a network gives back: bars, an image, or the class of each pixel; and the square of an autoencoder's codes.

const CLASS_COLORS = ["#8c959f", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b8a600"];
const MOST_BARS = 12;
const SIDE = 168; // pixels of an image, about

const classColor = (number) => CLASS_COLORS[number] || `hsl(${Math.round(number * 137.5) % 360} 60% 50%)`;

class Output {
  constructor(page, explorer) {
    Object.assign(this, { ...page.output, explorer, index: explorer.nodes.length - 1, list: document.getElementById("bars") });
    this.shape = explorer.nodes[this.index].shape;
    const name = { image: "The image that the network gives back", classes: "The class of each pixel" }[this.view];
    if (!name) return;
    this.scale = Math.max(1, Math.round(SIDE / this.shape[1]));
    this.canvas = element("canvas", { class: "map", id: "output", role: "img", "aria-label": name });
    this.pixel = element("p", { class: "quiet", id: "pixel" }, "point at it to read a value");
    this.list.before(this.canvas, this.pixel);
    for (const kind of ["pointermove", "pointerdown"]) this.canvas.addEventListener(kind, (event) => this.point(event));
  }

  draw() {
    const values = this.explorer.of(this.index);
    if (this.view === "bars") this.drawBars(Array.from(values));
    else if (this.view === "image") {
      const [height, width, channels] = this.shape;
      drawImage(this.canvas, { data: values, height, width, channels }, this.scale);
    } else if (this.view === "classes") this.drawClasses(values);
    else this.list.replaceChildren(element("li", {}, `${this.shape.join("×")}: the last maps`));
  }

  drawBars(values) {
    const { labels, probabilities, list } = this;
    const order = values.map((_, i) => i);
    const best = values.indexOf(Math.max(...values));
    if (values.length > MOST_BARS) order.sort((a, b) => values[b] - values[a]);
    const most = probabilities ? 1 : Math.max(...values.map(Math.abs)) || 1;
    list.classList.toggle("short", labels.every((label) => label.length < 3));
    list.replaceChildren(
      ...order.slice(0, MOST_BARS).map((i) => {
        const fill = element("span");
        fill.style.width = `${(100 * Math.abs(values[i])) / most}%`;
        return element(
          "li",
          { class: i === best ? "best" : null },
          element("span", {}, labels[i] + (i === best ? " ◂" : "")),
          element("span", { class: "track" }, fill),
          element("span", {}, probabilities ? percent(values[i]) : number(values[i])),
        );
      }),
    );
  }

  // The class of a position: the channel with the largest value.
  classAt(values, position) {
    const classes = this.shape[2];
    let best = 0;
    for (let channel = 1; channel < classes; channel += 1)
      if (values[position * classes + channel] > values[position * classes + best]) best = channel;
    return best;
  }

  drawClasses(values) {
    const [height, width, classes] = this.shape;
    const context = this.canvas.getContext("2d");
    const counts = new Array(classes).fill(0);
    fit(this.canvas, { canvasWidth: width * this.scale, canvasHeight: height * this.scale });
    for (let row = 0; row < height; row += 1)
      for (let column = 0, from = 0, last = -1; column <= width; column += 1) { // runs of one class
        const found = column < width ? this.classAt(values, row * width + column) : -1;
        if (column < width) counts[found] += 1;
        if (found === last) continue;
        if (last >= 0) {
          context.fillStyle = classColor(last);
          context.fillRect(from * this.scale, row * this.scale, (column - from) * this.scale, this.scale);
        }
        [from, last] = [column, found];
      }
    const order = counts.map((_, i) => i);
    if (classes > MOST_BARS) order.sort((a, b) => counts[b] - counts[a]);
    this.list.classList.add("legend");
    this.list.replaceChildren(
      ...order.slice(0, MOST_BARS).map((i) => {
        const swatch = element("span", { class: "swatch" });
        swatch.style.background = classColor(i);
        return element("li", {}, swatch, element("span", {}, this.labels[i]), element("span", {}, percent(counts[i] / (height * width))));
      }),
    );
  }

  point(event) {
    if (!this.explorer.values) return;
    const [height, width, channels] = this.shape;
    const box = this.canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - box.top) / box.height) * height);
    const column = Math.floor(((event.clientX - box.left) / box.width) * width);
    if (row < 0 || column < 0 || row >= height || column >= width) return;
    const values = this.explorer.of(this.index);
    const position = row * width + column;
    const channel = this.view === "classes" ? this.classAt(values, position) : 0;
    const value = values[position * channels + channel];
    this.pixel.textContent = `row ${row}, column ${column}: ` +
      (this.view === "classes" ? `${this.labels[channel]}, ${percent(value)}` : number(value));
    this.explorer.select(this.index, position * channels + channel);
  }
}

const percent = (part) => `${(100 * part).toFixed(1)} %`;

// The square of codes: every point of it is a code, of which the layers behind make an image.
class Square {
  constructor({ index, low, high, codes, labels, names }, explorer) {
    Object.assign(this, { index, low, high, names, explorer, labels: labels && bytesOf(labels) });
    this.codes = new Float32Array(bytesOf(codes).buffer);
    this.canvas = element("canvas", { id: "square", width: 320, height: 320, tabindex: 0, role: "img",
      "aria-label": "The square of codes. Point at it to decode a code; arrow keys move by a fortieth of a side." });
    this.text = element("p", { class: "quiet", id: "code", "aria-live": "polite" });
    document.getElementById("answer-title").before(
      element("h2", {}, "The square of codes"),
      this.canvas,
      this.text,
      element("p", { class: "quiet" }, "Each mark is the code of a test image. Move over the square: the layers behind the code decode it."),
    );
    for (const kind of ["pointermove", "pointerdown"])
      this.canvas.addEventListener(kind, (event) => {
        const box = this.canvas.getBoundingClientRect();
        this.walk([(event.clientX - box.left) / box.width, 1 - (event.clientY - box.top) / box.height]);
      });
    this.canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
      if (!step) return;
      event.preventDefault();
      this.walk(this.part(this.code()).map((at, axis) => at + step[axis] / 40));
    });
  }

  code() {
    return Array.from(this.explorer.of(this.index));
  }

  // A code as parts of the sides, from the lower left corner, and back.
  part(code) {
    return code.map((value, axis) => (value - this.low[axis]) / (this.high[axis] - this.low[axis]));
  }

  walk(at) {
    if (!this.explorer.values) return;
    const inside = at.map((part) => Math.min(Math.max(part, 0), 1));
    const code = inside.map((part, axis) => this.low[axis] + part * (this.high[axis] - this.low[axis]));
    this.explorer.compute(Float32Array.from(code), this.index);
  }

  draw() {
    const { width, height } = this.canvas;
    const context = this.canvas.getContext("2d");
    const place = (code) => { const [x, y] = this.part(code); return [x * width, (1 - y) * height]; };
    context.clearRect(0, 0, width, height);
    Object.assign(context, { font: "11px sans-serif", textAlign: "center", textBaseline: "middle", globalAlpha: 0.85 });
    const written = this.labels && this.names.every((name) => name.length < 3); // letters, or else dots
    for (let i = 0; 2 * i < this.codes.length; i += 1) {
      const [x, y] = place([this.codes[2 * i], this.codes[2 * i + 1]]);
      context.fillStyle = this.labels ? classColor(this.labels[i]) : "#8c959f";
      if (written) context.fillText(this.names[this.labels[i]], x, y);
      else context.fillRect(x - 2, y - 2, 4, 4);
    }
    const [x, y] = place(this.code());
    Object.assign(context, { globalAlpha: 1, lineWidth: 2, strokeStyle: this.explorer.mark() });
    context.beginPath();
    context.arc(x, y, 7, 0, 2 * Math.PI);
    context.moveTo(x - 12, y);
    context.lineTo(x + 12, y);
    context.moveTo(x, y - 12);
    context.lineTo(x, y + 12);
    context.stroke();
    this.text.textContent = `code (${this.code().map(number).join(", ")})`;
  }
}
