"use strict";
// The page: drawing, the maps of every layer, and where a value comes from.

const MOST_MAPS = 64; // shown before "show all"

class Explorer {
  constructor(page, ask) {
    Object.assign(this, { page, ask, nodes: page.graph.nodes, values: null, selected: null, waiting: null, busy: false });
    this.seen = this.nodes.findIndex((node) => node.name === "network input");
    this.offsets = [];
    let offset = 0;
    for (const node of this.nodes) {
      this.offsets.push(offset);
      offset += count(node.shape);
    }
    this.layers = this.nodes.map((node, index) => (index > this.seen ? this.addLayer(node, index) : null));
    this.frames = 0;
    this.output = new Output(page, this);
    if (page.latent) this.square = new Square(page.latent, this);
    this.stack = new Stack(this);
    this.setColors();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.setColors());
    new ResizeObserver(() => this.layout()).observe(document.getElementById("layers"));
  }

  of(index) {
    return this.values.subarray(this.offsets[index], this.offsets[index] + count(this.nodes[index].shape));
  }

  setColors() {
    this.colors = diverging(matchMedia("(prefers-color-scheme: dark)").matches);
    const scale = document.getElementById("scale");
    const ramp = Float32Array.from({ length: 256 }, (_, i) => (i - 127.5) / 127.5);
    drawMaps(scale, { ...tiling([1, 256, 1], 0, 1), scale: 1, canvasWidth: 256, canvasHeight: 1 }, ramp, 1, this.colors);
    scale.style.width = "";
    this.draw();
  }

  // --- layers

  addLayer(node, index) {
    const canvas = element("canvas", { class: "map", tabindex: 0, role: "img", "data-node": index });
    const bound = this.page.bounds[index];
    const layer = { canvas, index, visible: false, most: MOST_MAPS };
    const channels = node.shape[node.shape.length - 1];
    const title = element(
      "h3",
      {},
      node.name,
      element("span", {}, node.about),
      element("span", {}, node.shape.join("×")),
      element("span", {}, `colours: −${short(bound)} to ${short(bound)}`),
    );
    canvas.setAttribute("aria-label", `${node.name}, ${node.about}, ${node.shape.join(" by ")}. Arrow keys move, Page Up and Page Down change the channel, Enter enlarges.`);
    const section = element("section", { class: "layer" }, title, canvas);
    if (channels > MOST_MAPS && node.shape.length === 3)
      section.append(
        element("button", { onclick: (event) => { layer.most = Infinity; event.target.remove(); this.layout(); } }, `show all ${channels} maps`),
      );
    if (node.shape.length < 3) layer.most = 1024;
    document.getElementById("layers").append(section);
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      const scale = canvas.width / box.width;
      return layer.tiles.unitAt((event.clientX - box.left) * scale, (event.clientY - box.top) * scale);
    };
    canvas.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch") return;
      const unit = at(event);
      clearTimeout(this.hovering); // a cursor on its way to the panel does not change it
      if (unit !== null) this.hovering = setTimeout(() => this.select(index, unit), 40);
    });
    canvas.addEventListener("pointerleave", () => clearTimeout(this.hovering));
    canvas.addEventListener("click", (event) => {
      const unit = at(event);
      if (unit === null) return;
      this.select(index, unit);
      if (event.pointerType !== "touch") this.enlarge(index, unit % channels);
    });
    canvas.addEventListener("focus", () => {
      if (canvas.matches(":focus-visible") && this.selected?.index !== index) this.select(index, 0);
    });
    canvas.addEventListener("keydown", (event) => this.key(event, index));
    new IntersectionObserver(([entry]) => {
      layer.visible = entry.isIntersecting;
      if (layer.visible) this.drawLayer(layer);
    }, { rootMargin: "200px" }).observe(canvas);
    return layer;
  }

  key(event, index) {
    const { shape } = this.nodes[index];
    const [height, width, channels] = shape.length === 3 ? shape : [1, 1, shape[0]];
    const unit = this.selected?.index === index ? this.selected.unit : 0;
    const at = place(shape, unit);
    let { row, column, channel } = at;
    const across = this.layers[index].tiles.across;
    const single = height * width === 1;
    switch (event.key) {
      case "ArrowLeft": if (single) channel -= 1; else column -= 1; break;
      case "ArrowRight": if (single) channel += 1; else column += 1; break;
      case "ArrowUp": if (single) channel -= across; else row -= 1; break;
      case "ArrowDown": if (single) channel += across; else row += 1; break;
      case "PageUp": channel -= 1; break;
      case "PageDown": channel += 1; break;
      case "Enter": this.enlarge(index, channel); return;
      default: return;
    }
    event.preventDefault();
    const within = (value, size) => Math.min(Math.max(value, 0), size - 1);
    this.select(index, (within(row, height) * width + within(column, width)) * channels + within(channel, channels));
  }

  layout() {
    const room = document.getElementById("layers").clientWidth;
    if (!room) return; // the other view is shown
    for (const layer of this.layers) {
      if (!layer) continue;
      layer.tiles = tiling(this.nodes[layer.index].shape, room, layer.most);
      fit(layer.canvas, layer.tiles); // also where it is not drawn yet, so that the page does not jump
    }
    this.draw();
  }

  draw() {
    if (!this.values || !this.layers.some((layer) => layer?.tiles)) return;
    this.layers.forEach((layer) => layer?.visible && this.drawLayer(layer));
    this.drawSeen();
    this.output.draw();
    this.square?.draw();
    this.stack.draw();
  }

  drawLayer(layer) {
    if (!this.values || !layer.tiles) return;
    drawMaps(layer.canvas, layer.tiles, this.of(layer.index), this.page.bounds[layer.index], this.colors);
    const found = this.found;
    if (!found) return;
    if (found.index === layer.index) {
      const { row, column, channel } = found.at;
      drawFrame(layer.canvas, layer.tiles, { rows: [row, row], columns: [column, column] }, channel, this.mark());
    }
    if (found.window?.input === layer.index) {
      const span = (list) => { const inside = list.filter((v) => v >= 0); return [Math.min(...inside), Math.max(...inside)]; };
      const box = { rows: span(found.window.rows), columns: span(found.window.columns) };
      if (box.rows[0] <= box.rows[1] && box.columns[0] <= box.columns[1])
        for (const table of found.tables) drawFrame(layer.canvas, layer.tiles, box, table.channel, this.mark(), 1);
    }
  }

  mark() {
    return "#e6007e";
  }

  drawSeen(canvas = document.getElementById("seen"), width = 168) {
    const [height, across, channels] = this.nodes[this.seen].shape;
    const { mean, std } = this.page.preprocess; // back to 0 ... 1, for the eye
    const data = this.of(this.seen).map((value, i) => value * std[i % channels] + mean[i % channels]);
    const scale = Math.max(1, Math.round(width / across));
    drawImage(canvas, { data, height, width: across, channels }, scale);
    if (this.found?.field) {
      const tiles = { ...tiling([height, across, 1], 0, 1), scale };
      drawFrame(canvas, tiles, this.found.field, 0, this.mark());
    }
  }

  // --- computing from an image, or from the values of a later node: the latest wins

  async compute(given, from = 0) {
    this.waiting = { given, from };
    if (this.busy) return;
    this.busy = true;
    while (this.waiting) {
      const next = this.waiting;
      this.waiting = null;
      let answer;
      try {
        answer = await this.ask({ do: "run", ...next });
      } catch (error) { // the server of a live page has ended
        document.getElementById("timing").textContent = `no answer: ${error.message.split("\n")[0]}`;
        break;
      }
      const { values, milliseconds } = answer;
      this.values = values;
      this.frames += 1;
      document.getElementById("timing").textContent = `computed in ${milliseconds.toFixed(1)} ms`;
      if (!this.layers.some((layer) => layer?.tiles)) this.layout();
      else this.draw();
      if (this.selected) this.select(this.selected.index, this.selected.unit, false);
      if (next.from) document.getElementById("framing").textContent = "the last image; the code is chosen in the square";
      else this.image = next.given;
      await this.drawGradients();
    }
    this.busy = false;
  }

  // --- gradients, which the server of a live page computes

  startGradients(methods) {
    this.method = element(
      "select",
      { id: "method", "aria-label": "Attribution", onchange: () => this.drawGradients() },
      element("option", { value: "" }, "attribution …"),
      ...methods.map((name) => element("option", { value: name }, name.replaceAll("_", " "))),
    );
    this.picture = element("canvas", { class: "map", id: "picture", role: "img", "aria-label": "What the predicted class depends on" });
    document.getElementById("framing").after(this.method, this.picture);
  }

  async drawGradients() {
    if (!this.method) return;
    if (!this.method.value) {
      fit(this.picture, { canvasWidth: 0, canvasHeight: 0 });
      return;
    }
    const { values } = await this.ask({ do: "gradients", image: this.image, method: this.method.value });
    const [height, width] = this.nodes[this.seen].shape;
    const channels = values.length / (height * width);
    const sums = Float32Array.from({ length: height * width }, (_, i) =>
      values.subarray(i * channels, (i + 1) * channels).reduce((sum, v) => sum + v, 0));
    const bound = sums.reduce((most, v) => Math.max(most, Math.abs(v)), 0) || 1;
    const scale = Math.max(1, Math.round(168 / width));
    const tiles = { ...tiling([height, width, 1], 0, 1), scale, canvasWidth: width * scale, canvasHeight: height * scale };
    drawMaps(this.picture, tiles, sums, bound, this.colors);
  }

  // --- one unit

  async select(index, unit, open = true) {
    this.selected = { index, unit };
    if (!this.values) return;
    const found = await this.ask({ do: "unit", index, unit });
    if (this.selected.index !== index || this.selected.unit !== unit) return;
    const before = this.found;
    this.found = found;
    for (const layer of this.layers)
      if (layer?.visible && [found, before].some((one) => one && (one.index === layer.index || one.window?.input === layer.index)))
        this.drawLayer(layer);
    this.drawSeen();
    this.inspect(found, open);
  }

  inspect(found, open) {
    const panel = document.getElementById("inspector");
    if (open) panel.classList.remove("closed");
    const node = this.nodes[found.index];
    const step = (by) => {
      const channels = node.shape.length === 3 ? node.shape[2] : 1;
      const size = count(node.shape);
      this.select(found.index, (((found.unit + by * channels) % size) + size) % size);
    };
    const parts = [
      element("h2", {}, `${found.name}: ${found.at.text}`),
      element("p", { class: "value", id: "value" }, number(found.value)),
      element("p", {}, "= ", found.formula),
    ];
    if (found.tables?.length) parts.push(this.windowOf(found));
    if (found.terms?.length) parts.push(this.termsOf(found));
    parts.push(this.fieldOf(found));
    parts.push(
      element(
        "div",
        { class: "buttons" },
        element("button", { onclick: () => step(-1) }, "◂ back"),
        element("button", { onclick: () => this.play(step) }, this.playing ? "pause" : "play"),
        element("button", { onclick: () => step(1) }, "step ▸"),
        element("button", { onclick: () => this.enlarge(found.index, found.at.channel) }, "enlarge"),
        element("button", { class: "close", onclick: () => panel.classList.add("closed") }, "close"),
      ),
    );
    this.step = step;
    panel.replaceChildren(...parts);
  }

  // The sliding window: one step after the other, until paused.
  play() {
    if (this.playing) {
      clearInterval(this.playing);
      this.playing = null;
    } else {
      this.playing = setInterval(() => this.step(1), 500);
    }
    if (this.found) this.inspect(this.found, true);
  }

  windowOf(found) {
    const chosen = found.tables.find((table) => table.channel === this.channel) || found.tables[0];
    const input = found.names[0];
    const cells = (name) => chosen.rows.map((row) => row.map((cell) => ({ ...cell, value: cell[name] })));
    const figure = (title, name) => element("figure", {}, element("figcaption", {}, title), numbers(cells(name), title));
    const wide = chosen.rows[0].length > 7 || chosen.rows.length > 7;
    const body = element("div", { class: "window" });
    const first = chosen.rows[0][0];
    if (wide) body.append(element("p", { class: "quiet" }, `the window is ${chosen.rows.length}×${chosen.rows[0].length}; enlarge the input's map to see its values`));
    else {
      body.append(figure(`channel ${chosen.channel} of ${input}`, "x"));
      if (first.k !== undefined) body.append("×", figure(found.window ? "weights" : "", "k"), "=", figure("products", "product"));
    }
    const kind = this.nodes[found.index].kind;
    const sum = kind === "max" ? "" : `sum ${number(chosen.sum)}`;
    return element("div", {}, body, element("p", { class: "quiet" }, sum + (chosen.rows.flat().some((cell) => cell.outside) ? "  (dashed: padding)" : "")));
  }

  termsOf(found) {
    const rows = found.terms.map((term) => {
      const label = term.channel === undefined
        ? term.label
        : element("button", { onclick: () => { this.channel = term.channel; this.inspect(found, true); } }, term.label);
      return element("tr", {}, element("td", {}, label), element("td", { class: signClass(term.value) }, number(term.value)));
    });
    if (found.rest)
      rows.push(element("tr", {}, element("td", {}, `${found.rest.count} smaller terms`), element("td", {}, number(found.rest.value))));
    rows.push(element("tr", {}, element("td", {}, "sum"), element("td", { id: "sum-of-terms" }, number(found.value))));
    return element("div", {}, element("h3", {}, "Terms, largest first"), element("table", { class: "terms" }, ...rows));
  }

  fieldOf(found) {
    const { field } = found;
    if (!field || field.rows[1] < field.rows[0]) return element("p", { class: "quiet" }, "sees padding only");
    const canvas = element("canvas", { class: "map", role: "img", "aria-label": "the receptive field on the input" });
    this.drawSeen(canvas, 112);
    const text = `sees rows ${field.rows.join(" to ")} and columns ${field.columns.join(" to ")} of the image: ` +
      `${field.rows[1] - field.rows[0] + 1} by ${field.columns[1] - field.columns[0] + 1} pixels`;
    return element("div", {}, element("h3", {}, "Receptive field"), canvas, element("p", { class: "quiet", id: "field" }, text));
  }

  enlarge(index, channel) {
    const node = this.nodes[index];
    const [height, width, channels] = node.shape.length === 3 ? node.shape : [1, 1, node.shape[0]];
    if (height * width === 1) return;
    const dialog = document.getElementById("large");
    const canvas = element("canvas", { class: "map", role: "img", "aria-label": `${node.name}, channel ${channel}` });
    const scale = Math.max(1, Math.floor(Math.min(innerWidth * 0.85, innerHeight * 0.6, 480) / Math.max(height, width)));
    const map = Float32Array.from({ length: height * width }, (_, i) => this.of(index)[i * channels + channel]);
    const tiles = { ...tiling([height, width, 1], 0, 1), scale, canvasWidth: width * scale, canvasHeight: height * scale };
    drawMaps(canvas, tiles, map, this.page.bounds[index], this.colors);
    const read = element("p", { "aria-live": "polite" }, "point at the map to read a value");
    canvas.addEventListener("pointermove", (event) => {
      const box = canvas.getBoundingClientRect();
      const unit = tiles.unitAt(((event.clientX - box.left) / box.width) * canvas.width, ((event.clientY - box.top) / box.height) * canvas.height);
      if (unit !== null) read.textContent = `row ${Math.floor(unit / width)}, column ${unit % width}: ${number(map[unit])}`;
    });
    const parts = [element("h2", {}, `${node.name}, channel ${channel}`), canvas, read];
    if (height * width <= 784) {
      const rows = Array.from({ length: height }, (_, r) => Array.from({ length: width }, (_, c) => ({ value: map[r * width + c] })));
      const table = numbers(rows, "values");
      const scroll = element("div", { tabindex: 0 }, table);
      scroll.style.overflowX = "auto";
      parts.push(scroll);
    }
    dialog.firstElementChild.replaceChildren(...parts);
    if (!dialog.open) dialog.showModal();
  }
}

// Drawing: strokes on a black square, framed as the training set's digits are.
class Pad {
  constructor(page, explorer) {
    Object.assign(this, { page, explorer, canvas: document.getElementById("pad"), stroke: null });
    this.context = this.canvas.getContext("2d", { willReadFrequently: true });
    this.clear();
    this.canvas.addEventListener("pointerdown", (event) => {
      event.preventDefault();
      this.canvas.setPointerCapture?.(event.pointerId);
      if (this.shown === "image") this.clear();
      this.stroke = event.pointerId;
      this.line(this.at(event), this.at(event));
    });
    this.canvas.addEventListener("pointermove", (event) => {
      if (this.stroke !== event.pointerId) return;
      const events = event.getCoalescedEvents?.() ?? [];
      for (const each of events.length ? events : [event]) this.line(this.last, this.at(each));
    });
    for (const name of ["pointerup", "pointercancel"]) this.canvas.addEventListener(name, () => { this.stroke = null; });
    document.getElementById("clear").addEventListener("click", () => { this.clear(); this.send(new Uint8Array(count(this.page.imageShape)), ""); });
    const file = document.getElementById("file");
    file.addEventListener("change", () => file.files[0] && this.open(file.files[0]));
    const area = document.querySelector(".input");
    area.addEventListener("dragover", (event) => { event.preventDefault(); area.classList.add("dropping"); });
    area.addEventListener("dragleave", () => area.classList.remove("dropping"));
    area.addEventListener("drop", (event) => {
      event.preventDefault();
      area.classList.remove("dropping");
      if (event.dataTransfer.files[0]) this.open(event.dataTransfer.files[0]);
    });
    const example = document.getElementById("example");
    example.addEventListener("change", () => example.value !== "" && this.example(Number(example.value)));
  }

  clear() {
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    this.shown = "strokes";
    document.getElementById("example").value = "";
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [
      ((event.clientX - box.left) / box.width) * this.canvas.width,
      ((event.clientY - box.top) / box.height) * this.canvas.height,
    ];
  }

  line(from, to) {
    this.last = to;
    Object.assign(this.context, { lineCap: "round", lineJoin: "round", lineWidth: this.canvas.width * 0.09, strokeStyle: "#fff" });
    this.context.beginPath();
    this.context.moveTo(...from);
    this.context.lineTo(...to);
    this.context.stroke();
    if (!this.due) this.due = requestAnimationFrame(() => { this.due = null; this.strokes(); });
  }

  // What the strokes become for the network.
  strokes() {
    const { data, width, height } = this.context.getImageData(0, 0, this.canvas.width, this.canvas.height);
    const ink = { data: Float64Array.from({ length: width * height }, (_, i) => data[4 * i] / 255), height, width };
    const [rows, columns, channels] = this.page.imageShape;
    let bytes = this.page.inkExtent && frameInk(ink, rows, columns, this.page.inkExtent);
    let how = "scaled and centred as the training images are";
    if (!bytes) {
      const small = resized(ink, [0, height], [0, width], rows, columns, "box");
      bytes = Uint8Array.from(small.data, (v) => rint(255 * Math.min(v, 1)));
      how = "scaled to the size of the training images";
    }
    this.send(channels === 1 ? bytes : Uint8Array.from({ length: bytes.length * channels }, (_, i) => bytes[Math.floor(i / channels)]), how);
  }

  example(index) {
    const bytes = bytesOf(this.page.examples[index].image);
    this.showImage(bytes);
    this.send(bytes, `test example: ${this.page.examples[index].title}`);
  }

  showImage(bytes) {
    const [height, width, channels] = this.page.imageShape;
    const small = element("canvas");
    drawImage(small, { data: Float32Array.from(bytes, (byte) => byte / 255), height, width, channels }, 1);
    this.context.imageSmoothingEnabled = false;
    this.context.fillStyle = "#000";
    this.context.fillRect(0, 0, this.canvas.width, this.canvas.height);
    const scale = Math.min(this.canvas.width / width, this.canvas.height / height);
    const [w, h] = [width * scale, height * scale];
    this.context.drawImage(small, (this.canvas.width - w) / 2, (this.canvas.height - h) / 2, w, h);
    this.shown = "image";
  }

  async open(file) {
    const read = await pixelsOf(file, 1024).catch(() => null);
    if (!read) {
      document.getElementById("framing").textContent = "this file cannot be read as an image";
      return;
    }
    document.getElementById("example").value = "";
    const { bytes, how } = framedImage(read, this.page);
    this.showImage(bytes);
    this.send(bytes, how);
  }

  send(bytes, how) {
    document.getElementById("framing").textContent = how;
    this.explorer.compute(Float32Array.from(bytes, (byte) => byte / 255));
  }
}

// A user's image in the form of the training set's, as --mode=predict reads it.
function framedImage(read, page) {
  const [rows, columns, channels] = page.imageShape;
  const { height, width } = read;
  let planes = channels === 1
    ? [greyOf(read)]
    : [0, 1, 2].map((c) => ({ height, width, data: Float64Array.from({ length: height * width }, (_, i) => read.data[4 * i + c]) }));
  let how = "";
  if (channels === 1 && page.inkExtent) {
    if (borderIsLighter(planes[0])) {
      planes = [{ ...planes[0], data: planes[0].data.map((v) => 255 - v) }];
      how = "inverted: dark ink on light paper; ";
    }
    const ink = height === rows && width === columns ? null : findInk(planes[0]);
    if (ink) return { bytes: frameInk(ink, rows, columns, page.inkExtent), how: `${how}ink framed as in the training set` };
  }
  const box = cut(height, width, rows, columns, page.framing);
  const fill = planes.map((plane) => median(plane.data.filter((_, i) => isBorder(plane)(i))));
  const bytes = new Uint8Array(rows * columns * channels);
  planes.forEach((plane, c) => {
    const shifted = { ...plane, data: plane.data.map((v) => v - fill[c]) }; // beyond the image is its border's colour
    resized(shifted, box.rows, box.columns, rows, columns, "bilinear").data.forEach((v, i) => {
      bytes[i * channels + c] = rint(Math.min(Math.max(v + fill[c], 0), 255));
    });
  });
  return { bytes, how: `${how}scaled: ${page.framing}` };
}

// The part of an image that becomes the whole of another size.
function cut(height, width, rows, columns, framing) {
  const scales = [height / rows, width / columns];
  const scale = framing === "crop" ? Math.min(...scales) : Math.max(...scales);
  const [h, w] = framing === "stretch" ? [height, width] : [rows * scale, columns * scale];
  return { rows: [(height - h) / 2, (height + h) / 2], columns: [(width - w) / 2, (width + w) / 2] };
}

function startTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  const show = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", String(tab === chosen));
      tab.tabIndex = tab === chosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
    chosen.focus();
  };
  tabs.forEach((tab, i) => {
    tab.addEventListener("click", () => show(tab));
    tab.addEventListener("keydown", (event) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (by) show(tabs[(i + by + tabs.length) % tabs.length]);
    });
  });
}

function showCheck({ difference, name, compared, size }) {
  const badge = document.getElementById("badge");
  const right = difference <= 1e-3;
  badge.classList.add(right ? "good" : "bad");
  badge.dataset.difference = difference;
  const share = compared < size ? `${compared.toLocaleString("en")} of ${size.toLocaleString("en")} values` : `all ${size.toLocaleString("en")} values`;
  badge.textContent = right
    ? `✓ agrees with Python: largest relative difference ${number(difference)} in ${share}`
    : `✗ differs from Python by ${number(difference)} in ${name}: do not trust the numbers on this page`;
}

async function start(script) {
  const page = JSON.parse(document.getElementById("data").textContent);
  const ask = startWorker(script);
  const explorer = new Explorer(page, ask);
  const pad = new Pad(page, explorer);
  startTabs();
  startKernels(document.getElementById("kernels"), page.kernels);
  if (page.live) {
    const server = { origin: location.origin, query: page.live.query };
    await ask({ do: "open", graph: page.graph, server });
    document.getElementById("badge").textContent = "computed by cnn_jax on this computer";
    if (page.live.methods.length) explorer.startGradients(page.live.methods);
  } else {
    showCheck(await ask({ do: "open", graph: page.graph, check: page.check }));
  }
  if (page.examples.length) pad.example(0);
  else pad.send(new Uint8Array(count(page.imageShape)), "");
  return { explorer, pad, ask };
}

if (self.document?.currentScript) self.explorer = start(document.currentScript.textContent);
