"use strict";
// Colours, maps on canvases, and tables of numbers.

const STEPS = 255; // of the colour scale on each side of 0

function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

// The colours from the most negative to the most positive value, as 32-bit pixels.
function diverging(dark) {
  const ends = dark
    ? [[108, 182, 255], [13, 15, 18], [255, 176, 87]]
    : [[0, 96, 168], [255, 255, 255], [180, 83, 9]];
  const colors = new Uint32Array(2 * STEPS + 1);
  for (let step = -STEPS; step <= STEPS; step += 1) {
    const part = Math.abs(step) / STEPS;
    const end = step < 0 ? ends[0] : ends[2];
    const [r, g, b] = end.map((value, i) => Math.round(ends[1][i] + (value - ends[1][i]) * part));
    colors[step + STEPS] = (255 << 24) | (b << 16) | (g << 8) | r;
  }
  return colors;
}

function colorIndex(value, bound) {
  const step = Math.round((value / bound) * STEPS);
  return (step > STEPS ? STEPS : step < -STEPS ? -STEPS : step || 0) + STEPS;
}

// Where the maps of one layer lie on its canvas, in rows that fit into a number of pixels.
function tiling(shape, room, most) {
  const [height, width, channels] = shape.length === 3 ? shape : [1, 1, shape[0]];
  const single = height * width === 1;
  const scale = single ? 16 : Math.max(1, Math.round(56 / Math.max(height, width)));
  const gap = single ? 2 : 4;
  const shown = Math.min(channels, most);
  const across = Math.max(1, Math.min(shown, Math.floor((room + gap) / (width * scale + gap))));
  return tiled({ height, width, channels, scale, gap, shown, across });
}

// Tiles of width x height units, each unit `scale` pixels wide, `across` of them in a row.
function tiled({ height, width, channels, scale, gap, shown, across }) {
  const [right, down] = [width * scale + gap, height * scale + gap];
  return {
    height, width, channels, scale, shown, across,
    canvasWidth: across * right - gap,
    canvasHeight: Math.ceil(shown / across) * down - gap,
    corner: (channel) => [(channel % across) * right, Math.floor(channel / across) * down],
    unitAt(x, y) {
      const channel = Math.floor(y / down) * across + Math.floor(x / right);
      const column = Math.floor((x % right) / scale);
      const row = Math.floor((y % down) / scale);
      if (channel >= shown || column >= width || row >= height || x < 0 || y < 0) return null;
      return (row * width + column) * channels + channel;
    },
  };
}

// Gives a canvas the size of its tiles.
function fit(canvas, { canvasWidth, canvasHeight }) {
  if (canvas.width === canvasWidth && canvas.height === canvasHeight) return;
  canvas.width = canvasWidth;
  canvas.height = canvasHeight;
  canvas.style.width = `${canvasWidth}px`;
}

// Draws all maps of a layer into its canvas.
function drawMaps(canvas, tiles, values, bound, colors) {
  fit(canvas, tiles);
  const context = canvas.getContext("2d");
  if (canvas.image?.width !== canvas.width || canvas.image?.height !== canvas.height)
    canvas.image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(canvas.image.data.buffer);
  const { height, width, channels, scale, shown, canvasWidth: across } = tiles;
  for (let channel = 0; channel < shown; channel += 1) {
    const [left, top] = tiles.corner(channel);
    for (let row = 0; row < height; row += 1)
      for (let column = 0; column < width; column += 1) {
        const color = colors[colorIndex(values[(row * width + column) * channels + channel], bound)];
        for (let y = 0; y < scale; y += 1) {
          const from = (top + row * scale + y) * across + left + column * scale;
          for (let x = from; x < from + scale; x += 1) pixels[x] = color;
        }
      }
  }
  context.putImageData(canvas.image, 0, 0);
}

// A frame around a box of units of one channel.
function drawFrame(canvas, tiles, { rows, columns }, channel, color, line = 2) {
  if (channel >= tiles.shown || rows[1] < rows[0]) return;
  const [left, top] = tiles.corner(channel);
  const context = canvas.getContext("2d");
  context.lineWidth = line;
  context.strokeStyle = color;
  context.strokeRect(
    left + columns[0] * tiles.scale - line / 2,
    top + rows[0] * tiles.scale - line / 2,
    (columns[1] - columns[0] + 1) * tiles.scale + line,
    (rows[1] - rows[0] + 1) * tiles.scale + line,
  );
}

// An image of one or three channels with values from 0 to 1, `scale` pixels per pixel.
function drawImage(canvas, { data, height, width, channels }, scale) {
  fit(canvas, { canvasWidth: width * scale, canvasHeight: height * scale });
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  const byte = (value) => Math.round(255 * Math.min(Math.max(value, 0), 1));
  for (let row = 0; row < height; row += 1)
    for (let column = 0; column < width; column += 1) {
      const at = (row * width + column) * channels;
      const [r, g, b] = channels === 1 ? [at, at, at] : [at, at + 1, at + 2];
      const color = (255 << 24) | (byte(data[b]) << 16) | (byte(data[g]) << 8) | byte(data[r]);
      for (let y = 0; y < scale; y += 1) {
        const from = (row * scale + y) * canvas.width + column * scale;
        pixels.fill(color, from, from + scale);
      }
    }
  context.putImageData(image, 0, 0);
}

const signClass = (value) => (value < 0 ? "negative" : value > 0 ? "positive" : "");

// A table of numbers; cells is rows of {text, value, outside, winner}.
function numbers(cells, label) {
  return element(
    "table",
    { class: "numbers", "aria-label": label },
    ...cells.map((row) =>
      element(
        "tr",
        {},
        ...row.map(({ text, value, outside, winner }) =>
          element(
            "td",
            {
              class: [signClass(value), outside ? "outside" : "", winner ? "winner" : ""].join(" ").trim() || null,
              title: winner ? "the winner" : outside ? "padding" : null,
            },
            text ?? short(value),
          ),
        ),
      ),
    ),
  );
}

// Two or three digits, for tables.
function short(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e5)) return value.toExponential(0).replace(/-/g, "−");
  const digits = Number.isInteger(value) || size >= 100 ? 0 : size >= 10 ? 1 : size >= 0.01 ? 2 : 3;
  return value.toFixed(digits).replace("-", "−");
}
