"use strict";
// Frames ink as the training set's is framed: the rule of cnn_jax/data/ink.py, with the same numbers.
// A plane is {data, height, width}: one value per pixel.

const LEAST_CONTRAST = 16;
const LEAST_SIGNAL_TO_NOISE = 6;

const median = (values) => {
  const sorted = Float64Array.from(values).sort();
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

// As NumPy's: linear between the two neighbours.
function percentile(values, percent) {
  const sorted = Float64Array.from(values).sort();
  const at = (percent / 100) * (sorted.length - 1);
  const low = Math.floor(at);
  return sorted[low] + (at - low) * ((sorted[low + 1] ?? sorted[low]) - sorted[low]);
}

function isBorder({ height, width }) {
  const depth = Math.max(1, Math.floor(Math.min(height, width) / 16));
  return (i) => {
    const [row, column] = [Math.floor(i / width), i % width];
    return row < depth || row >= height - depth || column < depth || column >= width - depth;
  };
}

function borderIsLighter(plane) {
  const mean = plane.data.reduce((sum, v) => sum + v, 0) / plane.data.length;
  return median(plane.data.filter((_, i) => isBorder(plane)(i))) > mean;
}

// The plane a + b row / height + c column / width through the border's values, by the normal equations.
function background(plane) {
  const terms = (i) => [1, Math.floor(i / plane.width) / plane.height, (i % plane.width) / plane.width];
  const inside = isBorder(plane);
  const matrix = [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]];
  plane.data.forEach((value, i) => {
    if (!inside(i)) return;
    const t = terms(i);
    for (let a = 0; a < 3; a += 1) {
      for (let b = 0; b < 3; b += 1) matrix[a][b] += t[a] * t[b];
      matrix[a][3] += t[a] * value;
    }
  });
  for (let a = 0; a < 3; a += 1)
    for (let b = 0; b < 3; b += 1) {
      if (a === b) continue;
      const factor = matrix[b][a] / matrix[a][a];
      for (let c = a; c < 4; c += 1) matrix[b][c] -= factor * matrix[a][c];
    }
  const solution = matrix.map((row, a) => row[3] / row[a]);
  return (i) => terms(i).reduce((sum, t, a) => sum + t * solution[a], 0);
}

// Light ink on a dark background, from 0 to 1; null when nothing stands out.
function findInk(plane) {
  const under = background(plane);
  const above = plane.data.map((value, i) => value - under(i));
  const border = isBorder(plane);
  const noise = 1.4826 * median(above.filter((_, i) => border(i)).map(Math.abs));
  const peak = above.length > 1000 ? percentile(above, 99.9) : Math.max(...above);
  if (peak < Math.max(LEAST_CONTRAST, LEAST_SIGNAL_TO_NOISE * noise)) return null;
  const data = above.map((value) => Math.min(Math.max((value - 2 * noise) / (peak - 2 * noise), 0), 1));
  return { ...plane, data };
}

// Pillow's resizing of [start, stop) of an axis to a number of pixels; what lies outside of the axis is 0.
function resizing(size, start, stop, output, filter) {
  const scale = (stop - start) / output;
  const stretch = Math.max(scale, 1);
  const support = (filter === "box" ? 0.5 : 1) * stretch;
  const weight = (x) =>
    filter === "box" ? (x > -0.5 && x <= 0.5 ? 1 : 0) : Math.max(0, 1 - Math.abs(x));
  return Array.from({ length: output }, (_, i) => {
    const center = start + (i + 0.5) * scale;
    const first = Math.trunc(center - support + 0.5 + 1e6) - 1e6;
    const last = Math.trunc(center + support + 0.5 + 1e6) - 1e6;
    const weights = [];
    for (let x = first; x < last; x += 1) weights.push(weight((x - center + 0.5) / stretch));
    const total = weights.reduce((sum, w) => sum + w, 0);
    return weights
      .map((w, j) => [first + j, w / total])
      .filter(([x, w]) => w !== 0 && x >= 0 && x < size);
  });
}

function resized(plane, [top, bottom], [left, right], height, width, filter) {
  const columns = resizing(plane.width, left, right, width, filter);
  const rows = resizing(plane.height, top, bottom, height, filter);
  const narrow = new Float32Array(plane.height * width);
  for (let row = 0; row < plane.height; row += 1)
    columns.forEach((entries, column) => {
      let sum = 0;
      for (const [x, w] of entries) sum += w * plane.data[row * plane.width + x];
      narrow[row * width + column] = sum;
    });
  const data = new Float32Array(height * width);
  rows.forEach((entries, row) => {
    for (let column = 0; column < width; column += 1) {
      let sum = 0;
      for (const [y, w] of entries) sum += w * narrow[y * width + column];
      data[row * width + column] = sum;
    }
  });
  return { data, height, width };
}

// The lightest ink becomes white, its box takes `extent` of the frame, its centre of mass lies in the middle.
// Returns bytes from 0 to 255, or null without ink.
function frameInk(ink, height, width, extent) {
  const strong = (row, column) => ink.data[row * ink.width + column] >= 0.5;
  const box = [[Infinity, -1], [Infinity, -1]];
  for (let row = 0; row < ink.height; row += 1)
    for (let column = 0; column < ink.width; column += 1)
      if (strong(row, column))
        [row, column].forEach((at, axis) => {
          box[axis] = [Math.min(box[axis][0], at), Math.max(box[axis][1], at + 1)];
        });
  if (box[0][1] < 0) return null;
  const scale = extent * Math.min(height / (box[0][1] - box[0][0]), width / (box[1][1] - box[1][0]));
  const frame = [height / scale, width / scale];
  const start = frame.map((length, axis) => {
    const side = box[axis][1] - box[axis][0];
    const profile = new Float64Array(side);
    for (let row = box[0][0]; row < box[0][1]; row += 1)
      for (let column = box[1][0]; column < box[1][1]; column += 1)
        profile[(axis === 0 ? row : column) - box[axis][0]] += ink.data[row * ink.width + column];
    const mass = profile.reduce((sum, v) => sum + v, 0);
    const center = profile.reduce((sum, v, i) => sum + v * (i + 0.5), 0) / mass;
    return box[axis][0] + Math.min(Math.max(center - length / 2, side - length), 0);
  });
  const framed = resized(
    ink,
    [start[0], start[0] + frame[0]],
    [start[1], start[1] + frame[1]],
    height,
    width,
    scale < 1 ? "box" : "bilinear",
  ).data;
  const peak = framed.reduce((most, v) => Math.max(most, v), 0);
  return Uint8Array.from(framed, (v) => rint(Math.min(Math.max(v / peak, 0), 1) * 255));
}

// Halves go to the even neighbour, as in NumPy.
function rint(x) {
  const floor = Math.floor(x);
  if (x - floor !== 0.5) return Math.round(x);
  return floor % 2 ? floor + 1 : floor;
}
