// The plots of a sweep's page. They adapt to the available width and are linked: a trial is highlighted in all of them.
"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const trials = page.trials, scored = trials.filter((trial) => trial.score !== null);
const elements = new Map(trials.map((trial) => [trial.number, []])); // the elements of each trial in all plots and in the table
const filters = new Map(); // axis -> [low, high], as fractions of its length
const NS = "http://www.w3.org/2000/svg";

function svg(tag, attributes, ...children) {
  const element = document.createElementNS(NS, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

const format = (value) => {
  if (typeof value !== "number" || Number.isInteger(value)) return String(value);
  const size = Math.abs(value);
  const short = Number(value.toPrecision(4));
  return size >= 1e-3 && size < 1e5 ? String(short) : short.toExponential().replace("e+", "e");
};
const formatScore = (value) => (page.percent ? (100 * value).toFixed(2) + "%" : format(value));

// --- texts -----------------------------------------------------------------------------------------------------------

const pen = document.createElement("canvas").getContext("2d");
pen.font = `12px ${getComputedStyle(document.body).fontFamily}`;
const textWidth = (text) => pen.measureText(text).width;

// Shortens texts to a width in pixels, so that different texts remain different: see shortened() in formatting.py.
function shorten(texts, room) {
  const fits = (text) => textWidth(text) <= room;
  const cut = (text, before = "") => {
    if (fits(before + text)) return before + text;
    let length = text.length;
    while (length > 0 && !fits(`${before}${text.slice(0, length)}…`)) length--;
    return `${before}${text.slice(0, length)}…`;
  };
  const short = new Map(texts.map((text) => [text, cut(text)]));
  for (const shown of new Set(short.values())) {
    const group = [...short.keys()].filter((text) => short.get(text) === shown);
    if (group.length === 1) continue;
    let shared = 0;
    while (group.every((text) => shared < text.length && text[shared] === group[0][shared])) shared++;
    for (const text of group) {
      let length = shared;
      while (length > 0 && !fits(`${text.slice(0, length)}…${text.slice(shared)}`)) length--;
      short.set(text, length ? `${text.slice(0, length)}…${text.slice(shared)}` : cut(text.slice(shared), "…"));
    }
  }
  return texts.map((text) => short.get(text));
}

// Leaves out the ticks that would touch others; a tick has its place and its size along the axis, in pixels.
function apart(ticks) {
  const kept = [];
  for (const tick of [...ticks].sort((a, b) => a.at - b.at)) {
    const last = kept[kept.length - 1];
    if (!last || tick.at - last.at >= (tick.size + last.size) / 2) kept.push(tick);
  }
  return kept;
}

// --- scales ---------------------------------------------------------------------------------------------------------

function niceTicks(low, high, most) {
  const rough = (high - low) / Math.max(most, 1) || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough * 0.999);
  const ticks = [];
  for (let tick = Math.ceil(low / step - 1e-9) * step; tick <= high + step * 1e-9; tick += step)
    ticks.push(Number(tick.toPrecision(12)));
  return ticks;
}

function logTicks(low, high, most) {
  const decades = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) decades.push(power);
  const inside = (factors) => decades.flatMap((power) => factors.map((factor) => Number(`${factor}e${power}`)))
    .filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
  let ticks = [[1, 2, 5], [1, 3], [1]].map(inside).find((some) => some.length <= most) || inside([1]);
  const every = Math.ceil(ticks.length / most);
  return ticks.filter((_, index) => index % every === 0);
}

const NONE = -0.08; // the position of trials that have no value on an axis, because of a condition

// A value's position on an axis as a fraction of its length, and the ticks of the axis.
function makeScale(parameter, most) {
  if (parameter.values) {
    const places = new Map(parameter.values.map((value, index) => [value, (index + 0.5) / parameter.values.length]));
    const every = Math.ceil(parameter.values.length / most);
    return {
      place: (value) => places.get(value) ?? NONE,
      ticks: [...places].filter((_, index) => index % every === 0).map(([value, place]) => [place, value]),
    };
  }
  const { low, high, log } = parameter, ends = log ? [Math.log(low), Math.log(high)] : [low, high];
  const share = (number) => (ends[1] > ends[0] ? (number - ends[0]) / (ends[1] - ends[0]) : 0.5);
  const inside = (value) => share(log ? Math.log(value) : value);
  const place = (value) => (value === null ? NONE : inside(value));
  const few = parameter.tried && parameter.tried.length <= most; // with few values, the ticks are the values
  const ticks = few ? parameter.tried : (log ? logTicks : niceTicks)(low, high, most);
  return { place, ticks: ticks.map((tick) => [place(tick), format(tick)]) };
}

// On the score's axis the better half of the trials has at least a third of the length. Trials that are far worse than
// the rest are outside its range, and are shown as hollow marks at its edge.
const scoreScale = (() => {
  const sorted = scored.map((trial) => trial.score).sort((a, b) => a - b);
  let [low, high] = [sorted[0], sorted[sorted.length - 1]];
  const middle = sorted[Math.floor(sorted.length / 2)], least = 0.01 * Math.abs(middle);
  if (page.minimize) high = Math.min(high, low + 3 * Math.max(middle - low, least));
  else low = Math.max(low, high - 3 * Math.max(high - middle, least));
  const margin = 0.05 * (high - low) || 0.05 * Math.abs(low) || 1;
  const scale = { low: low - margin, high: high + margin };
  const inside = (value) => (value - scale.low) / (scale.high - scale.low);
  return {
    share: inside,
    inside: (value) => inside(value) >= 0 && inside(value) <= 1,
    place: (value) => Math.min(1, Math.max(0, inside(value))),
    ticks: (most) => {
      const ticks = niceTicks(scale.low, scale.high, most), texts = formatTicks(ticks);
      return ticks.map((tick, index) => [inside(tick), texts[index]]);
    },
  };
})();

// Formats scores that are fractions as percentages, with as many digits as are needed to distinguish the ticks.
function formatTicks(ticks) {
  if (!page.percent) return ticks.map(format);
  const exact = (digits) => ticks.every((tick) => Math.abs(100 * tick - Number((100 * tick).toFixed(digits))) < 1e-9);
  const digits = [0, 1, 2, 3].find(exact) ?? 4;
  return ticks.map((tick) => (100 * tick).toFixed(digits) + "%");
}

// --- plots ----------------------------------------------------------------------------------------------------------

// The elements of one trial: coloured by rank, with the best trial on top.
function mark(element, trial) {
  element.classList.add("trial");
  if (trial.number === page.best) element.classList.add("best");
  element.style.setProperty("--rank", `${Math.round(100 * trial.rank)}%`);
  element.dataset.number = trial.number;
  elements.get(trial.number).push(element);
  return element;
}

const byRank = [...scored].sort((a, b) => (a.number === page.best) - (b.number === page.best) || a.rank - b.rank);
const path = (points) => points.map(([x, y], index) => `${index ? "L" : "M"}${x.toFixed(1)} ${y.toFixed(1)}`).join("");

function label(x, y, text, options = {}, whole = text) {
  const element = svg("text", { x, y, ...options }, text);
  if (text !== whole) element.append(svg("title", {}, whole));
  return element;
}

// A trial whose score is outside the range of the axis is marked at its edge.
function markOutside(root, trial, [x, y]) {
  if (scoreScale.inside(trial.score)) return;
  root.append(mark(svg("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 3.5, class: "hollow" }), trial));
}

// The axes are upright, or lie below each other where the page is too narrow for that.
function parallel(width) {
  const columns = [...page.parameters, { name: page.metric, short: page.metric }], last = columns.length - 1;
  const missing = page.parameters.map((_, index) => scored.some((trial) => trial.values[index] === null));
  const upright = width >= 96 * last + 120, room = missing.includes(true) ? 40 : 16;
  const box = upright ? { left: 84, right: width - 64, top: 44, bottom: 340 - room } : { left: room, right: width - 16, top: 30 };
  const height = upright ? 340 : box.top + 62 * last + 28;
  const step = upright ? (box.right - box.left) / last : 62;
  const along = upright ? (share) => box.bottom - share * (box.bottom - box.top) : (share) => box.left + share * (box.right - box.left);
  const across = (index) => (upright ? box.left : box.top) + index * step;
  const at = (index, share) => (upright ? [across(index), along(share)] : [along(share), across(index)]);
  const most = (parameter) => (parameter.values ? 20 : upright ? 7 : Math.floor(width / 60));
  const scales = page.parameters.map((parameter) => makeScale(parameter, most(parameter)));
  missing.forEach((some, index) => some && scales[index].ticks.push([NONE, "none"]));
  scales.push({ place: (value) => scoreScale.place(value), ticks: scoreScale.ticks(upright ? 8 : Math.floor(width / 60)) });
  const root = svg("svg", { width, height });
  for (const trial of byRank) {
    const places = [...trial.values, trial.score].map((value, index) => at(index, scales[index].place(value)));
    root.append(mark(svg("path", { d: path(places), fill: "none" }), trial));
    markOutside(root, trial, places[last]);
  }
  // Names of upright axes are at two heights, so that each has the width of two steps; less at the ends.
  const space = (index) => (!upright ? width - 8 : !index || index === last ? step + 40 : 2 * step - 16);
  columns.forEach((column, index) => {
    const axis = svg("g", { class: "axis" }), [x, y] = at(index, 0);
    const [end, top] = at(index, 1);
    axis.append(svg("line", { x1: x, x2: end, y1: y, y2: top }));
    const texts = shorten(scales[index].ticks.map(([, text]) => String(text)), upright ? (index ? step - 16 : 76) : width / 3);
    const ticks = scales[index].ticks.map(([share, whole], number) => {
      const text = texts[number];
      return { at: along(share), size: upright ? 14 : textWidth(text) + 8, text, whole: String(whole) };
    });
    for (const tick of apart(ticks)) {
      const half = textWidth(tick.text) / 2 + 2;
      const place = !upright ? [Math.min(Math.max(tick.at, half), width - half), y + 16, "middle"]
        : index ? [x + 6, tick.at + 4, "start"] : [x - 6, tick.at + 4, "end"]; // no lines are left of the first axis
      axis.append(label(place[0], place[1], tick.text, { class: "halo", "text-anchor": place[2] }, tick.whole));
    }
    const anchor = !upright || !index ? "start" : index === last ? "end" : "middle";
    const [short] = shorten([column.short], 0.9 * space(index));
    const name = label({ start: 4, end: width - 4, middle: x }[anchor], upright ? (index % 2 ? 14 : 30) : y - 10, short,
      { "text-anchor": anchor, class: "name halo" });
    name.append(svg("title", {}, column.name));
    const chosen = svg("rect", { class: "chosen" }), handle = svg("rect", { class: upright ? "handle" : "handle flat" });
    const cover = (rect, [low, high], wide) => {
      const [one, two] = [along(low), along(high)].sort((a, b) => a - b);
      const sizes = [across(index) - wide / 2, one, wide, two - one];
      (upright ? ["x", "y", "width", "height"] : ["y", "x", "height", "width"]).forEach((key, k) => rect.setAttribute(key, sizes[k]));
    };
    cover(handle, [missing[index] ? NONE - 0.02 : -0.03, 1.03], 32);
    const show = () => cover(chosen, filters.get(index) || [0, 0], 14);
    const share = (event) => {
      const frame = root.getBoundingClientRect();
      const place = upright ? event.clientY - frame.top : event.clientX - frame.left;
      return Math.min(1.02, Math.max(NONE - 0.02, (place - along(0)) / (along(1) - along(0))));
    };
    handle.addEventListener("pointerdown", (event) => {
      const start = share(event);
      handle.setPointerCapture(event.pointerId);
      handle.onpointermove = (move) => {
        filters.set(index, [start, share(move)].sort((a, b) => a - b));
        show();
        applyFilters(scales);
      };
      handle.onpointerup = handle.onpointercancel = (end) => {
        handle.onpointermove = null;
        if (Math.abs(share(end) - start) < 0.01) filters.delete(index);
        show();
        applyFilters(scales);
      };
      event.preventDefault();
    });
    show();
    root.append(axis, name, chosen, handle);
  });
  return root;
}

function applyFilters(scales) {
  for (const trial of trials) {
    const kept = [...filters].every(([index, [low, high]]) => {
      const value = [...trial.values, trial.score][index];
      const place = value === null && index === page.parameters.length ? -1 : scales[index].place(value);
      return place >= low && place <= high;
    });
    for (const element of elements.get(trial.number)) element.classList.toggle("out", !kept);
  }
}

// Axes with ticks, for plots of a vertical quantity over a horizontal one.
function frame(width, height, { left, bottom }, xTicks, yTicks, name) {
  const root = svg("svg", { width, height }), right = width - 12, top = 26, floor = height - bottom;
  const x = (share) => left + share * (right - left), y = (share) => floor - share * (floor - top);
  for (const [share, text] of yTicks) {
    root.append(svg("line", { x1: left, x2: right, y1: y(share), y2: y(share), class: "grid" }));
    root.append(label(left - 6, y(share) + 4, text, { "text-anchor": "end" }));
  }
  const labels = xTicks.map(([share, text, row = 0, whole = text]) => {
    const half = textWidth(String(text)) / 2; // a label at an end is moved into the plot
    return { at: Math.min(Math.max(x(share), half), width - half), size: 2 * half + 8, text: String(text), row, whole: String(whole) };
  });
  for (const row of [0, 1])
    for (const tick of apart(labels.filter((one) => one.row === row)))
      root.append(label(tick.at, floor + 17 + 14 * row, tick.text, { "text-anchor": "middle" }, tick.whole));
  root.append(svg("line", { x1: left, x2: right, y1: floor, y2: floor, class: "floor" }));
  const middle = (left + right) / 2, [below, above] = [2 * (width - middle), width].map((room, index) =>
    shorten([index ? page.metric : name], 0.9 * room)[0]); // bold texts are a little wider
  root.append(label(middle, height - 4, below, { "text-anchor": "middle", class: "name" }, name));
  root.append(label(0, 12, above, { class: "name" }, page.metric));
  return { root, x, y, right, top, floor, left };
}

function scatter(width, index) {
  const parameter = page.parameters[index];
  const inset = (share) => 0.04 + 0.92 * share; // keeps dots and labels away from the edge
  const most = Math.max(2, Math.floor((width - 64) / 46)), named = parameter.values || [];
  const space = (0.92 * (width - 64)) / named.length;
  const rows = named.some((value) => textWidth(value) + 8 > space) ? 2 : 1; // rows of labels below the axis
  const scale = makeScale(parameter, named.length ? Math.floor((rows * (width - 64)) / 30) : most);
  const whole = scale.ticks.map(([, text]) => String(text));
  const edge = 12 + inset(0.5 / named.length) * (width - 64); // from the outer labels to the edge
  const short = named.length ? shorten(whole, Math.max(30, Math.min(rows * space - 8, 2 * edge))) : whole;
  const xTicks = scale.ticks.map(([share], place) => [inset(share), short[place], place % rows, whole[place]]);
  const plot = frame(width, 236, { left: 52, bottom: 26 + 14 * rows }, xTicks, scoreScale.ticks(5), parameter.name);
  for (const { values, mean, std } of page.points) {
    if (values[index] === null) continue;
    const x = plot.x(inset(scale.place(values[index])));
    const [low, y, high] = [mean - std, mean, mean + std].map((score) => plot.y(scoreScale.place(score)));
    plot.root.append(svg("line", { x1: x, x2: x, y1: low, y2: high, class: "spread" }));
    if (scoreScale.inside(mean)) plot.root.append(svg("line", { x1: x - 7, x2: x + 7, y1: y, y2: y, class: "mean" }));
  }
  const room = parameter.values ? 0.5 / parameter.values.length : 0;
  for (const trial of byRank) {
    if (trial.values[index] === null) continue;
    const jitter = room * (((trial.number * 0.618034) % 1) - 0.5); // spreads the trials of a categorical value over a strip
    const x = plot.x(inset(scale.place(trial.values[index]) + jitter)), y = plot.y(scoreScale.place(trial.score));
    const dot = mark(svg("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: trial.number === page.best ? 5 : 3.5 }), trial);
    dot.classList.toggle("hollow", !scoreScale.inside(trial.score));
    plot.root.append(dot);
  }
  return plot.root;
}

function curves(width) {
  const lines = byRank.filter((trial) => trial.curve.length);
  const last = Math.max(...lines.map((trial) => trial.curve[trial.curve.length - 1][0]));
  const whole = lines.every((trial) => trial.curve.every((point) => Number.isInteger(point[0])));
  const ticks = niceTicks(0, last, Math.max(2, Math.min(Math.floor(width / 80), whole ? last : Infinity)));
  const xTicks = ticks.filter((tick) => !whole || Number.isInteger(tick)).map((tick) => [tick / last, format(tick)]);
  const plot = frame(width, 336, { left: 52, bottom: 40 }, xTicks, scoreScale.ticks(8), "epoch");
  const { left, right, top, floor } = plot, inside = { x: left, y: top - 4, width: right - left + 4, height: floor - top + 8 };
  plot.root.append(svg("clipPath", { id: "inside" }, svg("rect", inside)));
  for (const trial of lines) {
    const found = trial.curve.filter((point) => point[1] !== null);
    const points = found.map(([epoch, value]) => [plot.x(epoch / last), plot.y(scoreScale.share(value))]);
    const drawn = points.length === 1 ? svg("circle", { cx: points[0][0], cy: points[0][1], r: 3 })
      : svg("path", { d: path(points), fill: "none" });
    drawn.setAttribute("clip-path", "url(#inside)"); // where scores are far worse than the rest, the line is outside
    plot.root.append(mark(drawn, trial));
    if (points.length) markOutside(plot.root, trial, [points[points.length - 1][0], plot.y(scoreScale.place(trial.score))]);
  }
  return plot.root;
}

const drawn = { parallel, curves, scatter };

function draw() {
  document.body.style.setProperty("--opacity", Math.max(0.3, Math.min(1, 200 / scored.length)).toFixed(2));
  for (const found of elements.values()) found.length = 0;
  for (const row of document.querySelectorAll("tr[data-number]")) elements.get(Number(row.dataset.number)).push(row);
  for (const place of document.querySelectorAll("[data-plot]")) {
    const name = place.dataset.plot;
    place.replaceChildren(drawn[name](Math.min(place.clientWidth, 900), Number(place.dataset.index)));
  }
  applyFilters([...page.parameters.map((parameter) => makeScale(parameter, parameter.values ? 20 : 7)), scoreScale]);
}

// --- highlighting a trial -------------------------------------------------------------------------------------------

const tip = document.createElement("div");
tip.id = "tip";
tip.hidden = true;
document.body.append(tip);
let shown = null;

function highlight(number, event) {
  if (shown !== number) {
    for (const element of elements.get(shown) || []) element.classList.remove("on");
    for (const element of elements.get(number) || []) element.classList.add("on");
    shown = number;
  }
  const trial = trials.find((one) => one.number === number);
  tip.hidden = !trial || !event;
  if (tip.hidden) return;
  const lines = [`trial ${number}: ${trial.score === null ? trial.state : formatScore(trial.score)}`];
  page.parameters.forEach((parameter, index) => {
    if (trial.values[index] !== null) lines.push(`${parameter.name} = ${format(trial.values[index])}`);
  });
  tip.textContent = lines.join("\n");
  tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8))}px`;
  const below = event.clientY + 16 + tip.offsetHeight < innerHeight;
  tip.style.top = `${below ? event.clientY + 16 : event.clientY - tip.offsetHeight - 12}px`;
}

// The nearest mark within a few pixels, because a line of one pixel is hard to point at.
function under(event) {
  for (const [dx, dy] of [[0, 0], [0, 4], [0, -4], [4, 0], [-4, 0], [0, 8], [0, -8]]) {
    const found = document.elementsFromPoint(event.clientX + dx, event.clientY + dy)
      .find((element) => element.classList.contains("trial") || element.closest("tr[data-number]"));
    if (found) return Number((found.closest("[data-number]") || found).dataset.number);
  }
  return null;
}

for (const kind of ["pointermove", "pointerdown"]) {
  document.addEventListener(kind, (event) => {
    if (event.target.closest("[data-plot], tbody")) highlight(under(event), event.target.closest("tbody") ? null : event);
    else highlight(null, null);
  });
}

// --- the table ------------------------------------------------------------------------------------------------------

for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const header = button.closest("th"), body = header.closest("table").tBodies[0];
    const up = header.getAttribute("aria-sort") !== "ascending", column = header.cellIndex;
    for (const other of header.parentElement.cells) other.removeAttribute("aria-sort");
    header.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = (row) => row.cells[column].dataset.value;
    const compare = (a, b) => {
      const [one, two] = [key(a), key(b)];
      if (one === "" || two === "") return (one === "") - (two === ""); // missing values come last in both directions
      const numbers = Number(one) - Number(two);
      return (up ? 1 : -1) * (Number.isNaN(numbers) ? one.localeCompare(two) : numbers);
    };
    body.append(...[...body.rows].sort(compare));
  });
}

let width = 0;
addEventListener("resize", () => {
  if (width !== document.body.clientWidth) draw();
  width = document.body.clientWidth;
});
draw();
width = document.body.clientWidth;
