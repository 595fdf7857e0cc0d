"use strict";
// The second view: any kernel on a photograph, with every product.

// Filters one channel with one kernel, as ops.conv does.
function filtered(plane, kernel, { stride, padding, boundary, dilation, flip }) {
  const used = flip ? kernel.map((row) => [...row].reverse()).reverse() : kernel;
  const axis = (size, window) => {
    const reach = (window - 1) * dilation + 1;
    const same = Math.max((Math.ceil(size / stride) - 1) * stride + reach - size, 0);
    const [low, high] = padding === "SAME" ? [same >> 1, same - (same >> 1)] : [padding, padding];
    const output = Math.floor((size + low + high - reach) / stride) + 1;
    if (output < 1) throw new Error(`the kernel reaches over ${reach} pixels, but the padded image has ${size + low + high}`);
    return { size, output, window, stride, low, dilation, boundary };
  };
  const [rows, columns] = [axis(plane.height, used.length), axis(plane.width, used[0].length)];
  const node = { rows, columns, groups: 1, boundary_value: 0 };
  const shape = [used.length, used[0].length, 1, 1];
  const arrays = { kernel: { data: Float32Array.from(used.flat()), shape } };
  const data = new Float32Array(rows.output * columns.output);
  conv(node, [{ data: plane.data, shape: [plane.height, plane.width, 1] }], arrays, data);
  return { data, height: rows.output, width: columns.output, node, kernel: used };
}

// The kernel in a text: rows on lines, numbers or fractions separated by blanks or commas.
function kernelOf(text) {
  const rows = text.trim().split(/\n+/).map((line) => line.trim().split(/[\s,;]+/).map((word) => {
    const [above, below = "1"] = word.split("/");
    const value = Number(above) / Number(below);
    if (!Number.isFinite(value)) throw new Error(`“${word}” is not a number`);
    return value;
  }));
  if (rows.some((row) => row.length !== rows[0].length)) throw new Error("the rows differ in length");
  if (rows.length > 99 || rows[0].length > 99) throw new Error("a kernel has at most 99 rows and columns");
  return rows;
}

// The kernels of the page as lists of rows.
function decoded(kernels) {
  const rows = ({ shape: [height, width], data }) => {
    const values = Array.from(new Float32Array(bytesOf(data).buffer));
    return Array.from({ length: height }, (_, row) => values.slice(row * width, (row + 1) * width));
  };
  return Object.fromEntries(Object.entries(kernels).map(([name, kernel]) => [name, rows(kernel)]));
}

function startKernels(root, { kernels: encoded, photograph, boundaries }) {
  const kernels = decoded(encoded);
  const bytes = bytesOf(photograph.data);
  let plane = { data: Float32Array.from(bytes, (byte) => byte / 255), height: photograph.height, width: photograph.width };
  let result = null;
  let unit = null;
  let video = null;
  const update = () => compute();
  const kernel = element("select", { id: "kernel", onchange: () => { text.value = shown(kernels[kernel.value]); compute(); } },
    ...Object.keys(kernels).map((name) => element("option", { value: name }, name)),
    element("option", { value: "" }, "typed in"));
  const text = element("textarea", { id: "kernel-text", spellcheck: "false", oninput: () => { kernel.value = ""; compute(); } });
  const stride = element("input", { id: "stride", type: "number", min: 1, max: 8, value: 1, oninput: update });
  const padding = element("select", { id: "padding", onchange: update },
    ...["SAME", "0", "1", "2", "3", "4"].map((value) => element("option", { value }, value === "SAME" ? "same size" : value)));
  const boundary = element("select", { id: "boundary", onchange: update },
    ...boundaries.map((name) => element("option", { value: name }, name)));
  const dilation = element("input", { id: "dilation", type: "number", min: 1, max: 6, value: 1, oninput: update });
  const flip = element("select", { id: "flip", onchange: update },
    element("option", { value: "" }, "cross-correlation"),
    element("option", { value: "flip" }, "convolution (kernel flipped)"));
  const file = element("input", { type: "file", accept: "image/*", onchange: () => file.files[0] && openFile(file.files[0]) });
  const webcam = element("button", { id: "webcam", onclick: () => (video ? stopWebcam() : startWebcam()) }, "Webcam");
  const labelled = (title, control) => element("label", {}, title, control);
  const before = element("canvas", { class: "map", tabindex: 0, id: "photograph", role: "img", "aria-label": "The image. Point at a pixel, or use the arrow keys." });
  const after = element("canvas", { class: "map", tabindex: 0, id: "filtered", role: "img", "aria-label": "The filtered image. Point at a pixel, or use the arrow keys." });
  const about = element("p", { class: "quiet" });
  const size = element("p", { class: "quiet" });
  const products = element("div", { id: "products", "aria-live": "polite" });
  root.append(
    element("p", {}, "Each pixel on the right is the sum of the products of a kernel with a window on the left. Point at either image."),
    element("div", { class: "choices" },
      labelled("kernel", kernel), labelled("numbers", text), labelled("stride", stride), labelled("padding", padding),
      labelled("boundary", boundary), labelled("dilation", dilation), labelled("operation", flip),
      element("label", { class: "button" }, "Open image", file), webcam),
    element("div", { class: "sides" }, element("div", {}, before, about), element("div", {}, after, size)),
    products,
  );

  function shown(rows) {
    return rows.map((row) => row.map((value) => Number(value.toPrecision(4))).join(" ")).join("\n");
  }

  function compute() {
    try {
      const numbersOfKernel = kernel.value ? kernels[kernel.value] : kernelOf(text.value);
      result = filtered(plane, numbersOfKernel, {
        stride: Math.max(1, Number(stride.value) || 1),
        padding: padding.value === "SAME" ? "SAME" : Number(padding.value),
        boundary: boundary.value,
        dilation: Math.max(1, Number(dilation.value) || 1),
        flip: flip.value !== "",
      });
    } catch (error) {
      complain(error.message);
      return;
    }
    if (unit === null || unit >= result.data.length) unit = Math.floor(result.data.length / 2 + result.width / 2);
    draw();
  }

  function draw() {
    const dark = matchMedia("(prefers-color-scheme: dark)").matches;
    const scale = Math.max(1, Math.floor(560 / Math.max(plane.width, plane.height)));
    drawImage(before, { ...plane, channels: 1 }, scale);
    const bound = result.data.reduce((most, v) => Math.max(most, Math.abs(v)), 0) || 1;
    const positive = result.data.every((v) => v >= 0);
    if (positive) drawImage(after, { ...result, data: result.data.map((v) => v / bound), channels: 1 }, scale);
    else drawMaps(after, oneTile(result, scale), result.data, bound, diverging(dark));
    before.style.width = after.style.width = ""; // that of their column
    about.textContent = `${plane.width}×${plane.height} pixels, from 0 (black) to 1 (white)`;
    size.textContent = `${result.width}×${result.height} values; ` +
      (positive ? `black is 0, white is ${number(bound)}` : `blue is −${number(bound)}, ${dark ? "black" : "white"} is 0, orange is ${number(bound)}`);
    show();
    const [row, column] = [Math.floor(unit / result.width), unit % result.width];
    const inside = (axis, at) => taps(axis)[at].filter((place) => place >= 0);
    const box = [inside(result.node.rows, row), inside(result.node.columns, column)].map((found) => [Math.min(...found), Math.max(...found)]);
    drawFrame(before, oneTile(plane, scale), { rows: box[0], columns: box[1] }, 0, "#e6007e", 2);
    drawFrame(after, oneTile(result, scale), { rows: [row, row], columns: [column, column] }, 0, "#e6007e", 2);
  }

  const oneTile = (size, scale) => ({ ...tiling([size.height, size.width, 1], 0, 1), scale, canvasWidth: size.width * scale, canvasHeight: size.height * scale });

  function show() {
    const [row, column] = [Math.floor(unit / result.width), unit % result.width];
    const read = taps(result.node.rows)[row].map((r) => taps(result.node.columns)[column].map((c) => ({
      value: r < 0 || c < 0 ? 0 : plane.data[r * plane.width + c], outside: r < 0 || c < 0 })));
    const weights = result.kernel.map((line) => line.map((value) => ({ value })));
    const multiplied = read.map((line, i) => line.map((cell, j) => ({ ...cell, value: cell.value * result.kernel[i][j] })));
    const part = (title, cells) => element("figure", {}, element("figcaption", { class: "quiet" }, title), numbers(cells, title));
    const large = result.kernel.length > 9 || result.kernel[0].length > 9;
    products.replaceChildren(
      element("p", {}, `row ${row}, column ${column}: the sum of ${result.kernel.length * result.kernel[0].length} products is `,
        element("strong", { id: "sum" }, number(result.data[unit]))),
      large ? "" : element("div", { class: "window" }, part("window", read), "×", part("kernel", weights), "=", part("products", multiplied)),
    );
  }

  function move(canvas, size, toUnit) {
    canvas.addEventListener("pointermove", (event) => point(event));
    canvas.addEventListener("pointerdown", (event) => point(event));
    function point(event) {
      const box = canvas.getBoundingClientRect();
      const column = Math.floor(((event.clientX - box.left) / box.width) * size().width);
      const row = Math.floor(((event.clientY - box.top) / box.height) * size().height);
      if (row < 0 || column < 0 || row >= size().height || column >= size().width) return;
      unit = toUnit(row, column);
      draw();
    }
    canvas.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
      if (!step || !result) return;
      event.preventDefault();
      const row = Math.min(Math.max(Math.floor(unit / result.width) + step[0], 0), result.height - 1);
      const column = Math.min(Math.max((unit % result.width) + step[1], 0), result.width - 1);
      unit = row * result.width + column;
      draw();
    });
  }
  move(after, () => result, (row, column) => row * result.width + column);
  move(before, () => plane, (row, column) => {
    const nearest = (axis, at) => {
      const middle = ((axis.window - 1) * axis.dilation) / 2 - axis.low;
      return Math.min(Math.max(Math.round((at - middle) / axis.stride), 0), axis.output - 1);
    };
    return nearest(result.node.rows, row) * result.width + nearest(result.node.columns, column);
  });

  // Shows a file or the current frame of a video; the chosen pixel stays if the size does.
  async function open(source) {
    const read = await pixelsOf(source, 160);
    if (source.srcObject && source !== video) return; // the webcam was stopped meanwhile
    const grey = greyOf(read).data.map((v) => v / 255);
    if (read.height !== plane.height || read.width !== plane.width) unit = null;
    plane = { data: Float32Array.from(grey), height: read.height, width: read.width };
    compute();
  }

  function openFile(chosen) {
    stopWebcam();
    open(chosen).catch(() => complain("this file cannot be read as an image"));
  }

  function complain(message) {
    products.replaceChildren(element("p", { class: "error", role: "alert" }, message));
  }

  // The webcam is asked for on a click only; it ends with a second click, another image or the other view.
  async function startWebcam() {
    const own = (video = element("video", { muted: "", playsinline: "" }));
    webcam.textContent = "Stop webcam";
    try {
      if (!navigator.mediaDevices) throw new Error("browsers give it to files and https pages only");
      own.srcObject = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 320 } } });
      await own.play();
    } catch (error) {
      const reasons = { NotAllowedError: "the browser did not allow it", NotFoundError: "there is none" };
      complain(`no webcam: ${reasons[error.name] || error.message}`);
    }
    while (video === own && own.srcObject?.active && !root.hidden) {
      await open(own);
      await new Promise(requestAnimationFrame);
    }
    own.srcObject?.getTracks().forEach((track) => track.stop());
    if (video === own) stopWebcam();
  }

  function stopWebcam() {
    video = null; // which ends the loop
    webcam.textContent = "Webcam";
  }

  root.addEventListener("dragover", (event) => event.preventDefault());
  root.addEventListener("drop", (event) => {
    event.preventDefault();
    if (event.dataTransfer.files[0]) openFile(event.dataTransfer.files[0]);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  kernel.value = Object.keys(kernels)[0];
  text.value = shown(kernels[kernel.value]);
  compute();
}

// The pixels of an image file or of a video's frame, shrunk to a longest side; transparent parts are white.
async function pixelsOf(file, most) {
  const bitmap = await createImageBitmap(file);
  const scale = Math.min(1, most / Math.max(bitmap.width, bitmap.height));
  const canvas = element("canvas", {
    width: Math.max(1, Math.round(bitmap.width * scale)),
    height: Math.max(1, Math.round(bitmap.height * scale)),
  });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return context.getImageData(0, 0, canvas.width, canvas.height);
}

// Grey values as Pillow computes them, from 0 to 255.
function greyOf({ data, height, width }) {
  const grey = new Float64Array(height * width);
  for (let i = 0; i < grey.length; i += 1)
    grey[i] = (data[4 * i] * 19595 + data[4 * i + 1] * 38470 + data[4 * i + 2] * 7471 + 0x8000) >> 16;
  return { data: grey, height, width };
}
