// The plots of a sweep's page. They adapt to the available width and are linked: a trial is highlighted in all of them.
"use strict";

const page = JSON.parse(document.getElementById("data").textContent);
const trials = page.trials, scored = trials.filter((trial) => trial.score !== null);
const elements = new Map(trials.map((trial) => [trial.number, []])); // the elements of each trial in all plots and in the table
const filters = new Map(); // axis -> [low, high], as fractions of its length
const NS = "http://www.w3.org/2000/svg", MOST_LETTERS = 24; // the maximum length of a text in a plot

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

function label(x, y, text, options = {}) {
  const element = svg("text", { x, y, ...options }, text);
  if (text.length > MOST_LETTERS) element.replaceChildren(text.slice(0, MOST_LETTERS - 1) + "…", svg("title", {}, text));
  return element;
}

function parallel(width) {
  const columns = [...page.parameters, { name: page.metric, short: page.metric }];
  const least = 96 * (columns.length - 1) + 120;
  width = Math.max(width, least);
  const missing = page.parameters.map((_, index) => scored.some((trial) => trial.values[index] === null));
  const height = 340, top = 44, bottom = height - (missing.includes(true) ? 40 : 16), left = 84, right = width - 64;
  const step = (right - left) / (columns.length - 1), y = (share) => bottom - share * (bottom - top);
  const scales = page.parameters.map((parameter) => makeScale(parameter, parameter.values ? 20 : 7));
  missing.forEach((some, index) => some && scales[index].ticks.push([NONE, "none"]));
  scales.push({ place: (value) => scoreScale.place(value), ticks: scoreScale.ticks(8) });
  const root = svg("svg", { width, height });
  for (const trial of byRank) {
    const all = [...trial.values, trial.score];
    const places = all.map((value, index) => [left + index * step, y(scales[index].place(value))]);
    root.append(mark(svg("path", { d: path(places), fill: "none" }), trial));
  }
  columns.forEach((column, index) => {
    const x = left + index * step, axis = svg("g", { class: "axis" });
    axis.append(svg("line", { x1: x, x2: x, y1: top, y2: bottom }));
    const lastOfAll = index === columns.length - 1;
    const beside = index ? [x + 6, "start"] : [x - 6, "end"]; // there are no lines to the left of the first axis
    for (const [share, text] of scales[index].ticks)
      axis.append(label(beside[0], y(share) + 4, String(text), { class: "halo", "text-anchor": beside[1] }));
    const anchor = lastOfAll ? "end" : index ? "middle" : "start";
    const name = label(x, index % 2 ? 14 : 30, column.short, { "text-anchor": anchor, class: "name" });
    if (lastOfAll) name.setAttribute("x", width - 4);
    if (!index) name.setAttribute("x", 4);
    name.append(svg("title", {}, column.name));
    const chosen = svg("rect", { x: x - 7, width: 14, y: 0, height: 0, class: "chosen" });
    const handle = svg("rect", { x: x - 16, width: 32, y: top - 8, height: bottom - top + 16, class: "handle" });
    const show = () => {
      const range = filters.get(index);
      chosen.setAttribute("y", range ? y(range[1]) : 0);
      chosen.setAttribute("height", range ? y(range[0]) - y(range[1]) : 0);
    };
    const share = (event) => {
      const box = root.getBoundingClientRect();
      return Math.min(1.02, Math.max(NONE - 0.02, (bottom - (event.clientY - box.top)) / (bottom - top)));
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
  for (const [share, text, row = 0] of xTicks) {
    const anchor = share > 0.97 ? "end" : share < 0.03 ? "start" : "middle";
    root.append(label(x(share), floor + 17 + 14 * row, String(text), { "text-anchor": anchor }));
  }
  root.append(svg("line", { x1: left, x2: right, y1: floor, y2: floor, class: "floor" }));
  root.append(label((left + right) / 2, height - 4, name, { "text-anchor": "middle", class: "name" }));
  root.append(label(0, 12, page.metric, { class: "name" }));
  return { root, x, y };
}

function scatter(width, index) {
  const parameter = page.parameters[index];
  const letters = Math.max(...(parameter.values || ["1e-5 "]).map((text) => Math.min(text.length, MOST_LETTERS)));
  const most = Math.max(2, Math.floor((width - 64) / (7 * letters + 10)));
  const rows = parameter.values && parameter.values.length > most ? 2 : 1; // rows of labels below the axis
  const scale = makeScale(parameter, rows * most);
  const inset = (share) => 0.04 + 0.92 * share; // keeps dots and labels away from the edge
  const xTicks = scale.ticks.map(([share, text], place) => [inset(share), text, place % rows]);
  const name = parameter.name.length > MOST_LETTERS ? parameter.short : parameter.name;
  const plot = frame(width, 236, { left: 52, bottom: 26 + 14 * rows }, xTicks, scoreScale.ticks(5), name);
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
  for (const trial of lines) {
    const points = trial.curve.filter((point) => point[1] !== null)
      .map(([epoch, value]) => [plot.x(epoch / last), plot.y(scoreScale.place(value))]);
    if (points.length === 1) plot.root.append(mark(svg("circle", { cx: points[0][0], cy: points[0][1], r: 3 }), trial));
    else plot.root.append(mark(svg("path", { d: path(points), fill: "none" }), trial));
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
