"use strict";
// How one value was computed: the terms and their sum, down to the printed number.
// explain(network, index, unit) returns {title, formula, value, tables, terms, rest, note}; a table is one channel's
// window: {title, rows: [[{x, k, from}]]}, with the value read, its weight, and whether it is the winner.

const MOST_TERMS = 12;

function number(value) {
  if (Number.isInteger(value) && Math.abs(value) < 1e6) return String(value).replace("-", "−");
  const size = Math.abs(value);
  const text = size !== 0 && (size < 1e-3 || size >= 1e5) ? value.toExponential(3) : value.toPrecision(4);
  return text.replace(/-/g, "−");
}

function place(shape, unit) {
  if (shape.length < 3) return { row: 0, column: 0, channel: unit, text: `unit ${unit}` };
  const channel = unit % shape[2];
  const position = (unit - channel) / shape[2];
  const [row, column] = [Math.floor(position / shape[1]), position % shape[1]];
  return { row, column, channel, text: `channel ${channel}, row ${row}, column ${column}` };
}

// The largest terms first; what is left is added up.
function ranked(terms) {
  const sorted = [...terms].sort((a, b) => Math.abs(b.value) - Math.abs(a.value));
  const rest = sorted.slice(MOST_TERMS);
  return {
    terms: sorted.slice(0, MOST_TERMS),
    rest: rest.length ? { count: rest.length, value: rest.reduce((sum, term) => sum + term.value, 0) } : null,
  };
}

const EXPLAIN = {
  input: () => ({ formula: "a value of the image, from 0 (black) to 1 (white)" }),

  conv(node, [x, addend], arrays, unit, at, value, names) {
    const [height, width, inputs, outputs] = arrays.kernel.shape.slice(-4);
    const group = Math.floor(at.channel / (outputs / node.groups));
    const rows = taps(node.rows)[at.row];
    const columns = taps(node.columns)[at.column];
    const position = at.row * node.columns.output + at.column;
    const first = arrays.kernel.shape.length > 4 ? position * height * width * inputs * outputs : 0;
    const tables = [];
    for (let c = 0; c < inputs; c += 1) {
      const channel = group * inputs + c;
      const table = { channel, input: 0, sum: 0, connected: false, rows: [] };
      rows.forEach((r, i) => {
        table.rows.push(
          columns.map((column, j) => {
            const k = arrays.kernel.data[first + ((i * width + j) * inputs + c) * outputs + at.channel];
            const outside = r < 0 || column < 0;
            const constant = r === CONSTANT || column === CONSTANT;
            const value = outside
              ? constant ? node.boundary_value : 0
              : x.data[(r * x.shape[1] + column) * x.shape[2] + channel];
            table.sum += value * k;
            table.connected = table.connected || k !== 0;
            return { x: value, k, product: value * k, outside };
          }),
        );
      });
      tables.push(table);
    }
    const bias = arrays.bias ? arrays.bias.data[(arrays.bias.shape.length > 1 ? position * outputs : 0) + at.channel] : 0;
    const connected = tables.filter((table) => table.connected);
    const terms = connected.map((table) => ({ label: `channel ${table.channel}`, value: table.sum, channel: table.channel }));
    if (arrays.bias) terms.push({ label: "bias", value: bias });
    if (addend) terms.push({ label: names[1], value: addend.data[unit] });
    const strongest = [...connected].sort((a, b) => Math.abs(b.sum) - Math.abs(a.sum));
    return {
      formula: `sum of ${height}×${width} products over ${connected.length} input channel${connected.length === 1 ? "" : "s"}` +
        (arrays.bias ? " + bias" : "") + (addend ? ` + ${names[1]}` : ""),
      tables: strongest,
      window: { input: node.inputs[0], rows, columns },
      ...ranked(terms),
    };
  },

  average(node, [x], arrays, unit, at) {
    return windowed(node, x, at, (value, weight) => value * weight, "weighted sum of the window", true);
  },

  max(node, [x], arrays, unit, at, value) {
    const found = windowed(node, x, at, null, "largest value of the window; the winner is framed", false);
    let taken = false;
    found.tables[0].rows.flat().forEach((cell) => {
      cell.winner = !taken && !cell.outside && cell.x === value;
      taken = taken || cell.winner;
    });
    return found;
  },

  unpool(node, [x, before], arrays, unit, at) {
    const places = [];
    eachWindow(node, before.shape, (position, entries) => {
      const from = position * x.shape[2] + at.channel;
      if (winner(before, entries, at.channel) === unit) places.push(place(x.shape, from).text);
    });
    return {
      formula: places.length
        ? `the value of ${places.join(" and of ")}, whose maximum was here before the pool`
        : "no maximum was here before the pool",
    };
  },

  lp(node, [x], arrays, unit, at) {
    return windowed(node, x, at, (value) => Math.abs(value) ** node.p, `(sum of |x|^${node.p})^(1/${node.p})`, false);
  },

  norm(node, [x], { mean, factor, bias }, unit, at) {
    const shift = bias ? bias.data[at.channel] : 0;
    return {
      formula:
        `(${number(x.data[unit])} − ${signed(mean.data[at.channel])}) × ${signed(factor.data[at.channel])}` +
        (bias ? ` + ${signed(shift)}` : "") +
        "   (value − mean) × factor" + (bias ? " + bias" : ""),
    };
  },

  lrn(node, [x], arrays, unit) {
    const around = neighbours(node, x.shape, unit);
    const squares = around.reduce((sum, j) => sum + x.data[j] ** 2, 0);
    return {
      formula:
        `${number(x.data[unit])} / (${number(node.k)} + ${number(node.alpha)} × ${number(squares)})^${number(node.beta)}` +
        `   where ${number(squares)} is the sum of the squares of ${around.length} neighbours`,
    };
  },

  elementwise(node, [x], arrays, unit) {
    const v = signed(x.data[unit]);
    const texts = {
      identity: v,
      relu: `max(${v}, 0)`,
      relu6: `min(max(${v}, 0), 6)`,
      scaled_tanh: `1.7159 × tanh(2 × ${v} / 3)`,
      negative: `−${v}`,
      square: `${v}²`,
      absolute: `|${v}|`,
      scale: `${v} × ${number(node.factor || 0)}`,
    };
    return { formula: texts[node.function] || `${node.function}(${number(x.data[unit])})` };
  },

  flatten(node, [x], arrays, unit) {
    return { formula: `the value of ${place(x.shape, unit).text}` };
  },

  linear(node, [x], { kernel, bias }, unit) {
    const [inputs, outputs] = kernel.shape;
    const first = Math.floor(unit / outputs) * inputs;
    const o = unit % outputs;
    const terms = Array.from({ length: inputs }, (_, i) => {
      const [value, weight] = [x.data[first + i], kernel.data[i * outputs + o]];
      return { label: `unit ${i}: ${signed(value)} × ${signed(weight)}`, value: value * weight };
    });
    if (bias) terms.push({ label: "bias", value: bias.data[o] });
    return { formula: `sum of ${inputs.toLocaleString("en")} products` + (bias ? " + bias" : ""), ...ranked(terms) };
  },

  rbf(node, [x], { centers }, unit) {
    const features = centers.shape[1];
    const terms = Array.from({ length: features }, (_, j) => {
      const [value, center] = [x.data[j], centers.data[unit * features + j]];
      return { label: `unit ${j}: (${number(value)} − ${signed(center)})²`, value: (value - center) ** 2 };
    });
    return { formula: `sum of ${features} squared differences to the code of class ${unit}`, ...ranked(terms) };
  },

  add(node, inputs, arrays, unit, at, value, names) {
    const values = inputs.map((x, i) => x.data[unitUnder(node, i, x, at, at.channel)]);
    return { formula: values.map(signed).join(" + "), ...ranked(values.map((v, i) => ({ label: names[i], value: v }))) };
  },

  concatenate(node, inputs, arrays, unit, at, value, names) {
    let channel = at.channel;
    let branch = 0;
    const last = (x) => x.shape[x.shape.length - 1];
    while (channel >= last(inputs[branch])) {
      channel -= last(inputs[branch]);
      branch += 1;
    }
    const from = place(inputs[branch].shape, unitUnder(node, branch, inputs[branch], at, channel));
    return { formula: `${from.text} of ${names[branch]}` };
  },

  softmax(node, [x], arrays, unit) {
    const C = x.shape[x.shape.length - 1];
    const row = Array.from(x.data.subarray(unit - (unit % C), unit - (unit % C) + C));
    const total = row.reduce((sum, v) => sum + Math.exp(v), 0);
    return { formula: `e^${signed(x.data[unit])} / ${number(total)}   the sum of e^x over all ${C}` };
  },
};

const unitUnder = (node, i, x, { row, column }, channel) =>
  under(node, i, x, row, column) * x.shape[x.shape.length - 1] + channel;

const signed = (value) => (value < 0 ? `(${number(value)})` : number(value));

function windowed(node, x, at, product, formula, weighted) {
  const rows = taps(node.rows)[at.row];
  const columns = taps(node.columns)[at.column];
  const C = x.shape[2];
  const table = { channel: at.channel, sum: 0, rows: [] };
  rows.forEach((r, i) => {
    table.rows.push(
      columns.map((c, j) => {
        const outside = r < 0 || c < 0;
        const value = outside ? 0 : x.data[(r * x.shape[1] + c) * C + at.channel];
        const k = weighted ? node.rows.weights[at.row][i] * node.columns.weights[at.column][j] : 1;
        const cell = { x: value, outside };
        if (weighted) cell.k = k;
        if (product) cell.product = outside ? 0 : product(value, k);
        table.sum += cell.product || 0;
        return cell;
      }),
    );
  });
  return { formula, tables: [table], window: { input: node.inputs[0], rows, columns } };
}

function explain(network, index, unit) {
  const node = network.nodes[index];
  const at = place(node.shape, unit);
  const value = network.of(index).data[unit];
  const inputs = node.inputs.map((input) => network.of(input));
  const names = node.inputs.map((input) => network.nodes[input].name);
  const found = index && index === network.given ? { formula: "chosen in the square" } : EXPLAIN[node.kind](node, inputs, network.arrays[index], unit, at, value, names);
  return { index, unit, at, value, name: node.name, about: node.about, names, field: network.field(index, unit), ...found };
}
