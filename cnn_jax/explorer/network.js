"use strict";
// A network: a graph of nodes with their parameters, as the page stores it, and its computation.

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i += 1) bytes[i] = text.charCodeAt(i);
  return bytes;
}

function fromHalf(half) {
  const result = new Float32Array(half.length);
  for (let i = 0; i < half.length; i += 1) {
    const h = half[i];
    const sign = h & 0x8000 ? -1 : 1;
    const exponent = (h >> 10) & 31;
    const fraction = h & 1023;
    if (exponent === 0) result[i] = sign * fraction * 2 ** -24;
    else if (exponent === 31) result[i] = fraction ? NaN : sign * Infinity;
    else result[i] = sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
  }
  return result;
}

const count = (shape) => shape.reduce((product, size) => product * size, 1);

class Network {
  constructor({ nodes, weights }) {
    this.nodes = nodes;
    const buffer = typeof weights === "string" ? bytesOf(weights).buffer : weights;
    this.arrays = nodes.map((node) => {
      const arrays = {};
      for (const [name, { offset, shape, dtype }] of Object.entries(node.arrays)) {
        const size = count(shape);
        const data =
          dtype === "float16"
            ? fromHalf(new Uint16Array(buffer, offset, size))
            : new Float32Array(buffer, offset, size);
        arrays[name] = { data, shape };
      }
      return arrays;
    });
    this.seen = Math.max(0, nodes.findIndex((node) => node.name === "network input"));
    this.offsets = [];
    this.size = 0;
    for (const node of nodes) {
      this.offsets.push(this.size);
      this.size += count(node.shape);
    }
    this.values = new Float32Array(this.size);
  }

  // The values of a node, as a view.
  of(index) {
    const { shape } = this.nodes[index];
    const offset = this.offsets[index];
    return { data: this.values.subarray(offset, offset + count(shape)), shape };
  }

  // Computes every node behind one, by default the first, from the values of that; returns all values in a row.
  run(values, from = 0) {
    this.of(from).data.set(values);
    this.given = from;
    this.nodes.forEach((node, index) => {
      if (index <= from) return;
      const inputs = node.inputs.map((input) => this.of(input));
      KERNELS[node.kind](node, inputs, this.arrays[index], this.of(index).data);
    });
    return this.values;
  }

  // Takes over the values of a node and of all behind it from those of all nodes.
  take(values, from) {
    this.values.set(values.subarray(this.offsets[from]), this.offsets[from]);
    this.given = from;
  }

  // The largest difference to values from Python, relative to the largest value of each node.
  check(reference) {
    let worst = { difference: 0, name: this.nodes[0].name };
    let compared = 0;
    reference.forEach(({ index, stride, values }) => {
      const expected = new Float32Array(bytesOf(values).buffer);
      const found = this.of(index).data;
      let scale = 0;
      let difference = 0;
      for (let i = 0; i < expected.length; i += 1) {
        scale = Math.max(scale, Math.abs(expected[i]));
        const apart = Math.abs(expected[i] - found[i * stride]);
        difference = apart <= difference ? difference : apart; // also true for NaN
      }
      const relative = difference === 0 ? 0 : difference / (scale || 1);
      if (!(relative <= worst.difference)) worst = { difference: relative, name: this.nodes[index].name };
      compared += expected.length;
    });
    return { ...worst, compared, size: this.size };
  }

  // The box of the network's input that a unit depends on: {rows: [first, last], columns: [first, last]}, or null.
  field(index, unit) {
    const boxes = new Array(this.nodes.length).fill(null);
    boxes[index] = this.box(index, unit);
    for (let at = index; at > this.seen; at -= 1) {
      if (!boxes[at]) continue;
      this.nodes[at].inputs.forEach((input) => {
        boxes[input] = hull(boxes[input], this.before(at, boxes[at], input, at === index ? unit : null));
      });
    }
    return boxes[this.seen];
  }

  box(index, unit) {
    const { shape } = this.nodes[index];
    if (shape.length < 3) return { rows: [0, 0], columns: [0, 0] };
    const position = Math.floor(unit / shape[2]);
    const [row, column] = [Math.floor(position / shape[1]), position % shape[1]];
    return { rows: [row, row], columns: [column, column] };
  }

  // The box of an input's positions that a box of a node's positions is computed from.
  before(index, box, input, unit) {
    const node = this.nodes[index];
    const { shape } = this.nodes[input];
    const cut = node.cuts?.[node.inputs.indexOf(input)];
    if (cut) return { rows: box.rows.map((row) => row + cut[0]), columns: box.columns.map((column) => column + cut[1]) };
    if (node.kind === "unpool") // the second input tells where values go, and not which
      return input === node.inputs[0] && { rows: holding(node.rows, box.rows), columns: holding(node.columns, box.columns) };
    if (node.kind === "conv" && input === node.inputs[1]) return box; // what is added
    if (node.rows) return { rows: reached(node.rows, box.rows), columns: reached(node.columns, box.columns) };
    if (node.kind === "lrn" && node.around.length === 2) {
      const [[above, below], [left, right]] = node.around;
      return {
        rows: [Math.max(0, box.rows[0] - above), Math.min(shape[0] - 1, box.rows[1] + below)],
        columns: [Math.max(0, box.columns[0] - left), Math.min(shape[1] - 1, box.columns[1] + right)],
      };
    }
    if (shape.length === 3 && node.shape.length < 3) {
      if (node.kind === "flatten" && unit !== null) return this.box(input, unit);
      return { rows: [0, shape[0] - 1], columns: [0, shape[1] - 1] };
    }
    return box;
  }
}

function reached(axis, [first, last]) {
  const found = taps(axis).slice(first, last + 1).flat().filter((place) => place >= 0);
  return found.length ? [Math.min(...found), Math.max(...found)] : [0, -1];
}

// The windows of an axis with entries from first to last.
function holding(axis, [first, last]) {
  const found = taps(axis).flatMap((places, at) => (places.some((place) => place >= first && place <= last) ? [at] : []));
  return found.length ? [found[0], found[found.length - 1]] : [0, -1];
}

function hull(a, b) {
  if (!a || !b) return a || b;
  const joined = (p, q) => [Math.min(p[0], q[0]), Math.max(p[1], q[1])];
  return { rows: joined(a.rows, b.rows), columns: joined(a.columns, b.columns) };
}
