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

// A kernel rearranged so that eight output channels lie side by side: [position][group][block][tap][channel][8].
// In double precision, so that the inner loop converts one number for eight products.
function packed(node, kernel) {
  const [height, width, inputs, outputs] = kernel.shape.slice(-4);
  const local = kernel.shape.length > 4 ? kernel.shape[0] * kernel.shape[1] : 1;
  const perGroup = outputs / node.groups;
  const blocks = Math.ceil(perGroup / 8);
  const result = new Float64Array(local * node.groups * blocks * height * width * inputs * 8);
  let at = 0;
  for (let position = 0; position < local; position += 1)
    for (let group = 0; group < node.groups; group += 1)
      for (let block = 0; block < blocks; block += 1)
        for (let tap = 0; tap < height * width * inputs; tap += 1)
          for (let lane = 0; lane < 8; lane += 1, at += 1) {
            const channel = block * 8 + lane;
            if (channel < perGroup)
              result[at] = kernel.data[(position * height * width * inputs + tap) * outputs + group * perGroup + channel];
          }
  return result;
}

function conv(node, [x, addend], arrays, y) {
  if (!arrays.kernel.packed) arrays.kernel.packed = packed(node, arrays.kernel);
  const k = arrays.kernel.packed;
  const [height, width, inputs, outputs] = arrays.kernel.shape.slice(-4);
  const local = arrays.kernel.shape.length > 4;
  const rows = taps(node.rows);
  const columns = taps(node.columns);
  const perGroup = outputs / node.groups;
  const blocks = Math.ceil(perGroup / 8);
  const size = height * width * inputs * 8; // of the packed kernel of one block
  const [, W, C] = x.shape;
  const data = x.data;
  const bias = arrays.bias ? arrays.bias.data : null;
  const perUnit = bias && arrays.bias.shape.length > 1;
  for (let row = 0; row < rows.length; row += 1) {
    for (let column = 0; column < columns.length; column += 1) {
      const position = row * columns.length + column;
      for (let group = 0; group < node.groups; group += 1) {
        for (let block = 0; block < blocks; block += 1) {
          const first = (((local ? position : 0) * node.groups + group) * blocks + block) * size;
          let s0 = 0, s1 = 0, s2 = 0, s3 = 0, s4 = 0, s5 = 0, s6 = 0, s7 = 0;
          for (let i = 0; i < height; i += 1) {
            const r = rows[row][i];
            for (let j = 0; j < width; j += 1) {
              const c = columns[column][j];
              let at = first + (i * width + j) * inputs * 8;
              if (r < 0 || c < 0) {
                if (node.boundary_value && (r === CONSTANT || c === CONSTANT)) {
                  const v = node.boundary_value;
                  for (const end = at + inputs * 8; at < end; at += 8) {
                    s0 += v * k[at]; s1 += v * k[at + 1]; s2 += v * k[at + 2]; s3 += v * k[at + 3];
                    s4 += v * k[at + 4]; s5 += v * k[at + 5]; s6 += v * k[at + 6]; s7 += v * k[at + 7];
                  }
                }
                continue;
              }
              const from = (r * W + c) * C + group * inputs;
              for (let channel = from; channel < from + inputs; channel += 1, at += 8) {
                const v = data[channel];
                s0 += v * k[at]; s1 += v * k[at + 1]; s2 += v * k[at + 2]; s3 += v * k[at + 3];
                s4 += v * k[at + 4]; s5 += v * k[at + 5]; s6 += v * k[at + 6]; s7 += v * k[at + 7];
              }
            }
          }
          const sums = [s0, s1, s2, s3, s4, s5, s6, s7];
          const channel = group * perGroup + block * 8;
          const count = Math.min(8, perGroup - block * 8);
          for (let lane = 0; lane < count; lane += 1) {
            const at = position * outputs + channel + lane;
            const b = bias ? bias[perUnit ? at : channel + lane] : 0;
            y[at] = sums[lane] + b + (addend ? addend.data[at] : 0);
          }
        }
      }
    }
  }
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
