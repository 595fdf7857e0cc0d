"use strict";
// One function per kind of layer. Arrays are Float32Arrays in row-major order: row, column, channel.
// A kernel is called as kernel(node, inputs, arrays, output): the node of the graph, the arrays of its inputs with
// their shapes, the node's parameters by name, and the array to fill. Sums are accumulated in double precision.

const HOLE = -1; // a tap that reads zero: padding, or a gap between spread inputs
const CONSTANT = -2; // a tap that reads the boundary value

// The input index behind position p of an axis that was spread by gaps and then extended by a boundary rule.
function source(p, axis) {
  const spread = axis.spread || 1;
  const length = (axis.size - 1) * spread + 1;
  if (p < 0 || p >= length) {
    const wrapped = (period) => ((p % period) + period) % period;
    switch (axis.boundary || "zero") {
      case "zero":
        return HOLE;
      case "constant":
        return CONSTANT;
      case "replicate":
        p = p < 0 ? 0 : length - 1;
        break;
      case "mirror":
        p = length > 1 ? wrapped(2 * length - 2) : 0;
        if (p >= length) p = 2 * length - 2 - p;
        break;
      case "symmetric":
        p = wrapped(2 * length);
        if (p >= length) p = 2 * length - 1 - p;
        break;
      case "periodic":
        p = wrapped(length);
        break;
      default:
        throw new Error("unknown boundary rule " + axis.boundary);
    }
  }
  return p % spread === 0 ? p / spread : HOLE;
}

// The input index of every entry of every window along one axis: taps[output][entry].
function taps(axis) {
  if (axis.taps) return axis.taps;
  if (!axis.found) {
    const found = [];
    for (let output = 0; output < axis.output; output += 1) {
      const start = output * axis.stride - axis.low;
      found.push(Array.from({ length: axis.window }, (_, tap) => source(start + tap * axis.dilation, axis)));
    }
    Object.defineProperty(axis, "found", { value: found }); // not copied when the node is sent elsewhere
  }
  return axis.found;
}

// The input index behind every position of an axis with its gaps and its border.
function places(axis) {
  if (!axis.places) {
    const length = (axis.output - 1) * axis.stride + (axis.window - 1) * axis.dilation + 1;
    const found = Int32Array.from({ length }, (_, p) => source(p - axis.low, axis));
    Object.defineProperty(axis, "places", { value: found });
  }
  return axis.places;
}

// The input with its gaps and its border, in double precision: the inner loop of conv neither branches nor converts.
function bordered(node, { data, shape: [, W, C] }) {
  const [rows, columns] = [places(node.rows), places(node.columns)];
  if (!node.work) Object.defineProperty(node, "work", { value: new Float64Array(rows.length * columns.length * C) });
  const { work } = node;
  for (let r = 0, at = 0; r < rows.length; r += 1)
    for (let c = 0; c < columns.length; c += 1) {
      const end = at + C;
      if (rows[r] >= 0 && columns[c] >= 0)
        for (let from = (rows[r] * W + columns[c]) * C; at < end; at += 1, from += 1) work[at] = data[from];
      else if (node.boundary_value && (rows[r] === CONSTANT || columns[c] === CONSTANT))
        work.fill(node.boundary_value, at, end);
      at = end;
    }
  return work;
}

// A kernel rearranged so that four output channels lie side by side: [position][group][block][tap][channel][4].
function packed(node, kernel) {
  const [height, width, inputs, outputs] = kernel.shape.slice(-4);
  const local = kernel.shape.length > 4 ? kernel.shape[0] * kernel.shape[1] : 1;
  const perGroup = outputs / node.groups;
  const blocks = Math.ceil(perGroup / 4);
  const result = new Float64Array(local * node.groups * blocks * height * width * inputs * 4);
  let at = 0;
  for (let position = 0; position < local; position += 1)
    for (let group = 0; group < node.groups; group += 1)
      for (let block = 0; block < blocks; block += 1)
        for (let tap = 0; tap < height * width * inputs; tap += 1)
          for (let lane = 0; lane < 4; lane += 1, at += 1) {
            const channel = block * 4 + lane;
            if (channel < perGroup)
              result[at] = kernel.data[(position * height * width * inputs + tap) * outputs + group * perGroup + channel];
          }
  return result;
}

// Four channels of two positions at a time: a weight is read once for two products, a value once for four.
function conv(node, [x, addend], { kernel, bias }, y) {
  if (!kernel.packed) kernel.packed = packed(node, kernel);
  const k = kernel.packed;
  const data = bordered(node, x);
  const [height, width, inputs, outputs] = kernel.shape.slice(-4);
  const local = kernel.shape.length > 4;
  const { rows, columns, groups } = node;
  const C = x.shape[2];
  const line = places(columns).length * C;
  const apart = columns.spread || 1; // of the two positions, so that the same taps fall into gaps
  const joined = groups === 1 && columns.dilation === 1 && apart === 1; // the taps of a row are one range
  const [steps, span] = joined ? [1, width * inputs] : [width, inputs];
  const perGroup = outputs / groups;
  const blocks = Math.ceil(perGroup / 4);
  const size = height * width * inputs * 4; // of the packed kernel of one block
  const holes = !node.boundary_value; // whether a tap on a hole reads zero
  for (let row = 0; row < rows.output; row += 1)
    for (let column = 0; column < columns.output; column += 1) {
      if (!local && Math.floor(column / apart) % 2) continue; // the second of two
      const position = row * columns.output + column;
      const two = !local && column + apart < columns.output;
      const right = two ? apart * columns.stride * C : 0;
      for (let group = 0; group < groups; group += 1)
        for (let block = 0; block < blocks; block += 1) {
          let a0 = 0, a1 = 0, a2 = 0, a3 = 0, b0 = 0, b1 = 0, b2 = 0, b3 = 0;
          let at = (((local ? position : 0) * groups + group) * blocks + block) * size;
          for (let i = 0; i < height; i += 1) {
            const r = row * rows.stride + i * rows.dilation;
            if (holes && places(rows)[r] === HOLE) {
              at += width * inputs * 4;
              continue;
            }
            for (let j = 0; j < steps; j += 1) {
              let from = r * line + (column * columns.stride + j * columns.dilation) * C + group * inputs;
              for (const end = from + span; from < end; from += 1, at += 4) {
                const k0 = k[at], k1 = k[at + 1], k2 = k[at + 2], k3 = k[at + 3];
                const a = data[from], b = data[from + right];
                a0 += a * k0; a1 += a * k1; a2 += a * k2; a3 += a * k3;
                b0 += b * k0; b1 += b * k1; b2 += b * k2; b3 += b * k3;
              }
            }
          }
          const count = perGroup - block * 4;
          const first = position * outputs + group * perGroup + block * 4;
          write(y, first, count, a0, a1, a2, a3);
          if (two) write(y, first + apart * outputs, count, b0, b1, b2, b3);
        }
    }
  if (bias) {
    const { length } = bias.data; // one for each channel, or for each unit
    for (let first = 0; first < y.length; first += length)
      for (let i = 0; i < length; i += 1) y[first + i] += bias.data[i];
  }
  if (addend) for (let i = 0; i < y.length; i += 1) y[i] += addend.data[i];
}

function write(y, first, count, s0, s1, s2, s3) {
  y[first] = s0;
  if (count > 1) y[first + 1] = s1;
  if (count > 2) y[first + 2] = s2;
  if (count > 3) y[first + 3] = s3;
}

// Calls visit(output position, list of [input position, weight]) for each window of a pool.
function eachWindow(node, [, W], visit) {
  if (!node.found) {
    const found = [];
    taps(node.rows).forEach((rows, row) => {
      taps(node.columns).forEach((columns, column) => {
        const entries = [];
        rows.forEach((r, i) => {
          columns.forEach((c, j) => {
            if (r < 0 || c < 0) return;
            const weight = node.rows.weights ? node.rows.weights[row][i] * node.columns.weights[column][j] : 1;
            entries.push([r * W + c, weight]);
          });
        });
        found.push(entries);
      });
    });
    Object.defineProperty(node, "found", { value: found });
  }
  node.found.forEach((entries, position) => visit(position, entries));
}

function average(node, [x], arrays, y) {
  const C = x.shape[2];
  eachWindow(node, x.shape, (position, entries) => {
    for (let channel = 0; channel < C; channel += 1) {
      let sum = 0;
      for (const [from, weight] of entries) sum += weight * x.data[from * C + channel];
      y[position * C + channel] = sum;
    }
  });
}

function max(node, [x], arrays, y) {
  const C = x.shape[2];
  eachWindow(node, x.shape, (position, entries) => {
    for (let channel = 0; channel < C; channel += 1) {
      let best = -Infinity;
      for (const [from] of entries) {
        const v = x.data[from * C + channel];
        if (v > best || v !== v) best = v;
      }
      y[position * C + channel] = best;
    }
  });
}

// Each value at the position where a max pool found the maximum of its input, the second array; zeros elsewhere.
function unpool(node, [x, before], arrays, y) {
  const C = before.shape[2];
  y.fill(0);
  eachWindow(node, before.shape, (position, entries) => {
    for (let channel = 0; channel < C; channel += 1) {
      const at = winner(before, entries, channel);
      const value = x.data[position * C + channel];
      if (at >= 0) y[at] = node.overlap === "add" ? y[at] + value : value;
    }
  });
}

// The index of the first largest value of a channel in a window; -1 for a window of padding.
function winner({ data, shape }, entries, channel) {
  let best = -1;
  for (const [from] of entries) {
    const at = from * shape[2] + channel;
    if (best < 0 || data[at] > data[best]) best = at;
  }
  return best;
}

function lp(node, [x], arrays, y) {
  const C = x.shape[2];
  eachWindow(node, x.shape, (position, entries) => {
    for (let channel = 0; channel < C; channel += 1) {
      let sum = 0;
      for (const [from] of entries) sum += Math.abs(x.data[from * C + channel]) ** node.p;
      y[position * C + channel] = sum ** (1 / node.p);
    }
  });
}

function norm(node, [x], { mean, factor, bias }, y) {
  const C = x.shape[x.shape.length - 1];
  for (let i = 0; i < y.length; i += C)
    for (let channel = 0; channel < C; channel += 1)
      y[i + channel] =
        (x.data[i + channel] - mean.data[channel]) * factor.data[channel] + (bias ? bias.data[channel] : 0);
}

// The positions whose squares a local response normalisation adds, as indices into the array.
function neighbours(node, [H, W, C], i) {
  const [height, width, channels] = C === undefined ? [1, 1, H] : [H, W, C];
  const channel = i % channels;
  const found = [];
  if (node.around.length === 1) {
    const [[low, high]] = node.around;
    for (let other = Math.max(0, channel - low); other <= Math.min(channels - 1, channel + high); other += 1)
      found.push(i - channel + other);
    return found;
  }
  const position = (i - channel) / channels;
  const [row, column] = [Math.floor(position / width), position % width];
  const [[above, below], [left, right]] = node.around;
  for (let r = Math.max(0, row - above); r <= Math.min(height - 1, row + below); r += 1)
    for (let c = Math.max(0, column - left); c <= Math.min(width - 1, column + right); c += 1)
      found.push((r * width + c) * channels + channel);
  return found;
}

function lrn(node, [x], arrays, y) {
  for (let i = 0; i < y.length; i += 1) {
    let squares = 0;
    for (const j of neighbours(node, x.shape, i)) squares += x.data[j] * x.data[j];
    y[i] = x.data[i] * (node.k + node.alpha * squares) ** -node.beta;
  }
}

// The error function's complement, from W. Press et al., Numerical Recipes: relative error below 1.2e-7.
function erfc(x) {
  const t = 1 / (1 + 0.5 * Math.abs(x));
  const terms = [-1.26551223, 1.00002368, 0.37409196, 0.09678418, -0.18628806, 0.27886807, -1.13520398, 1.48851587,
    -0.82215223, 0.17087277];
  const tail = t * Math.exp(-x * x + terms.reduceRight((sum, term) => sum * t + term, 0));
  return x >= 0 ? tail : 2 - tail;
}

const FUNCTIONS = {
  identity: (x) => x,
  relu: (x) => (x > 0 ? x : 0),
  relu6: (x) => Math.min(Math.max(x, 0), 6),
  tanh: Math.tanh,
  scaled_tanh: (x) => 1.7159 * Math.tanh((x * 2) / 3),
  sigmoid: (x) => 1 / (1 + Math.exp(-x)),
  gelu: (x) => 0.5 * x * erfc(-x / Math.SQRT2),
  silu: (x) => x / (1 + Math.exp(-x)),
  softplus: (x) => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x))),
  elu: (x) => (x > 0 ? x : Math.expm1(x)),
  negative: (x) => -x,
  square: (x) => x * x,
  absolute: Math.abs,
  clip: (x) => Math.min(Math.max(x, 0), 1),
  scale: (x, node) => x * node.factor,
};

function elementwise(node, [x], arrays, y) {
  const f = FUNCTIONS[node.function];
  for (let i = 0; i < y.length; i += 1) y[i] = f(x.data[i], node);
}

function flatten(node, [x], arrays, y) {
  y.set(x.data);
}

function linear(node, [x], { kernel, bias }, y) {
  const [inputs, outputs] = kernel.shape;
  const sums = new Float64Array(outputs);
  for (let first = 0; first * inputs < x.data.length; first += 1) {
    if (bias) sums.set(bias.data);
    else sums.fill(0);
    for (let i = 0; i < inputs; i += 1) {
      const v = x.data[first * inputs + i];
      for (let o = 0, at = i * outputs; o < outputs; o += 1, at += 1) sums[o] += v * kernel.data[at];
    }
    y.set(sums, first * outputs);
  }
}

function rbf(node, [x], { centers }, y) {
  const features = centers.shape[1];
  for (let i = 0; i < y.length; i += 1) {
    let sum = 0;
    for (let j = 0; j < features; j += 1) sum += (x.data[j] - centers.data[i * features + j]) ** 2;
    y[i] = sum;
  }
}

// The position in input i under a position of the node, which may read a part of a larger map.
function under(node, i, { shape }, row, column) {
  const [top, left] = node.cuts ? node.cuts[i] : [0, 0];
  return (row + top) * (shape.length === 3 ? shape[1] : 1) + column + left;
}

// Calls visit(position of the node, position of input i) for all positions.
function eachPosition(node, i, x, visit) {
  const [height, width] = node.shape.length === 3 ? node.shape : [1, 1];
  for (let row = 0, position = 0; row < height; row += 1)
    for (let column = 0; column < width; column += 1, position += 1) visit(position, under(node, i, x, row, column));
}

function add(node, inputs, arrays, y) {
  y.fill(0);
  inputs.forEach((x, i) => {
    const C = x.shape[x.shape.length - 1];
    eachPosition(node, i, x, (position, from) => {
      for (let channel = 0; channel < C; channel += 1) y[position * C + channel] += x.data[from * C + channel];
    });
  });
}

function concatenate(node, inputs, arrays, y) {
  const total = node.shape[node.shape.length - 1];
  let first = 0;
  inputs.forEach((x, i) => {
    const C = x.shape[x.shape.length - 1];
    eachPosition(node, i, x, (position, from) => {
      for (let channel = 0; channel < C; channel += 1)
        y[position * total + first + channel] = x.data[from * C + channel];
    });
    first += C;
  });
}

function softmax(node, [x], arrays, y) {
  const C = x.shape[x.shape.length - 1];
  for (let first = 0; first < y.length; first += C) {
    const row = Array.from(x.data.subarray(first, first + C));
    const peak = Math.max(...row);
    const total = row.reduce((sum, v) => sum + Math.exp(v - peak), 0);
    row.forEach((v, i) => { y[first + i] = Math.exp(v - peak) / total; });
  }
}

const KERNELS = {
  conv, average, max, unpool, lp, norm, lrn, elementwise, flatten, linear, rbf, add, concatenate, softmax,
};
