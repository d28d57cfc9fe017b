// A printed page shows all of its charts and parts, those that were never scrolled to as well.
// Who prints does not wait for answers, so what is missing is asked for synchronously, and charts
// are drawn as SVG: sharp, as wide as the paper, and in light colours whatever the screen has.
import { drawnCharts, source } from "./charts.js";
import { parallelPicture } from "./parallel.js";
import { addressOf, unseenParts } from "./parts.js";

const WIDTH = 720, HEIGHT = 330, LEFT = 62, RIGHT = 10, TOP = 10, BOTTOM = 42;
const SOON = "This is being computed; print again in a moment.";
const space = document.createRange().createContextualFragment("<svg></svg>").firstChild.namespaceURI;

function ask(address) {
  const request = new XMLHttpRequest();
  try {
    request.open("GET", address, false);
    request.send();
  } catch {
    return { status: 0 };
  }
  return { status: request.status, text: request.responseText };
}

function element(name, attributes, text) {
  const one = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  if (text !== undefined) one.textContent = text;
  return one;
}

// Round values between two ends: at most six of a linear axis; 1, 2 and 5 of each decade, or the
// decades alone, of a logarithmic one.
function ticksOf(low, high, log) {
  if (log) {
    const decades = [];
    for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power++) decades.push(10 ** power);
    const steps = decades.length > 4 ? [1] : [1, 2, 5];
    return decades.flatMap((decade) => steps.map((step) => step * decade)).filter((value) => value >= low && value <= high);
  }
  const rough = 10 ** Math.floor(Math.log10((high - low) / 5));
  const step = rough * [1, 2, 5, 10].find((factor) => (high - low) / (rough * factor) <= 6);
  const ticks = [];
  for (let count = Math.ceil(low / step); count * step <= high; count++) ticks.push(count * step);
  return ticks;
}

const written = (value) => `${Number(value.toPrecision(5))}`.replace("-", "−");

function rangeOf(data) {
  if (data.range) return data.range;
  const values = data.lines.flatMap((line) => [...line.mean, ...line.low, ...line.high]);
  const known = [...values, ...data.strays.flatMap((one) => one.values)].filter((value) => value !== null && (!data.log || value > 0));
  const low = Math.min(...known), high = Math.max(...known);
  return low < high ? [low, high] : [low - Math.abs(low || 1) / 2, high + Math.abs(high || 1) / 2];
}

// A path through the points that there are; a new stroke begins after a gap.
function pathOf(epochs, values, x, y) {
  let path = "", on = false;
  values.forEach((value, at) => {
    const there = value !== null && Number.isFinite(y(value));
    if (there) path += `${on ? "L" : "M"}${x(epochs[at]).toFixed(1)} ${y(value).toFixed(1)}`;
    on = there;
  });
  return path;
}

function curvesPicture(data) {
  const [low, high] = rangeOf(data).map((value) => (data.log ? Math.log(value) : value));
  const first = data.epochs[0], last = Math.max(data.epochs[data.epochs.length - 1], first + 1);
  const x = (epoch) => LEFT + ((epoch - first) / (last - first)) * (WIDTH - LEFT - RIGHT);
  const y = (value) => TOP + (1 - ((data.log ? Math.log(value) : value) - low) / (high - low)) * (HEIGHT - TOP - BOTTOM);
  const svg = element("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": data.label });
  const ends = data.log ? [Math.exp(low), Math.exp(high)] : [low, high];
  for (const tick of ticksOf(ends[0] * data.scale, ends[1] * data.scale, data.log)) {
    const at = y(tick / data.scale);
    svg.append(element("line", { class: "grid", x1: LEFT, x2: WIDTH - RIGHT, y1: at, y2: at }));
    svg.append(element("text", { class: "tick", x: LEFT - 6, y: at + 4, "text-anchor": "end" }, written(tick)));
  }
  for (const tick of ticksOf(first, last, false).filter(Number.isInteger)) {
    svg.append(element("line", { class: "grid", x1: x(tick), x2: x(tick), y1: TOP, y2: HEIGHT - BOTTOM }));
    svg.append(element("text", { class: "tick", x: x(tick), y: HEIGHT - BOTTOM + 15, "text-anchor": "middle" }, written(tick)));
  }
  svg.append(element("text", { class: "axis", x: (LEFT + WIDTH - RIGHT) / 2, y: HEIGHT - 8, "text-anchor": "middle" }, "epoch"));
  svg.append(element("text", { class: "axis", transform: `translate(13 ${(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)`, "text-anchor": "middle" }, data.label));
  const inner = element("svg", { x: LEFT, y: TOP, width: WIDTH - LEFT - RIGHT, height: HEIGHT - TOP - BOTTOM, viewBox: `${LEFT} ${TOP} ${WIDTH - LEFT - RIGHT} ${HEIGHT - TOP - BOTTOM}` });
  for (const stray of data.strays) inner.append(element("path", { class: "stray", d: pathOf(data.epochs, stray.values, x, y) }));
  data.lines.forEach((line, at) => {
    if (line.seeds > 1) {
      const there = data.epochs.map((_, place) => place).filter((place) => line.low[place] !== null && line.high[place] !== null);
      const edge = (values, places) => places.map((place) => `${x(data.epochs[place]).toFixed(1)} ${y(values[place]).toFixed(1)}`);
      inner.append(element("polygon", { class: `band fill-${at % 8}`, points: [...edge(line.high, there), ...edge(line.low, there.reverse())].join(" ") }));
    }
    inner.append(element("path", { class: `curve line-${at % 8}`, d: pathOf(data.epochs, line.mean, x, y) }));
    const best = data.epochs.indexOf(line.best_epoch);
    if (best >= 0 && line.mean[best] !== null) inner.append(element("circle", { class: `fill-${at % 8}`, cx: x(line.best_epoch), cy: y(line.mean[best]), r: 3.5 }));
  });
  svg.append(inner);
  const list = Object.assign(document.createElement("ul"), { className: "areas" });
  data.lines.forEach((line, at) => {
    const item = document.createElement("li");
    const mark = element("svg", { viewBox: "0 0 14 4" });
    mark.append(element("line", { class: `curve line-${at % 8}`, x1: 0, x2: 14, y1: 2, y2: 2 }));
    item.append(mark, ` ${line.name}${line.seeds > 1 ? ` (${line.seeds} seeds)` : ""}`);
    list.append(item);
  });
  return [svg, list];
}

function place(figure, ...content) {
  const printed = Object.assign(document.createElement("div"), { className: "printed" });
  printed.append(...content);
  figure.querySelector(".plot, .lines").after(printed);
}

function prepare() {
  clear();
  for (const part of unseenParts()) {
    const answer = ask(addressOf(part.getAttribute("hx-get")));
    // The server's own page, of which this is a part: as when it is scrolled to.
    if (answer.status === 200) part.replaceChildren(document.createRange().createContextualFragment(answer.text));
  }
  for (const [figure, drawn] of drawnCharts()) {
    let data = drawn;
    if (!data) {
      const answer = ask(source(figure));
      if (answer.status === 200) data = JSON.parse(answer.text);
      else if (answer.status === 202) place(figure, SOON);
    }
    if (data && data.epochs.length && (data.lines.length || data.strays.length)) place(figure, ...curvesPicture(data));
  }
  const parallel = document.querySelector("[data-parallel]");
  if (parallel) {
    const picture = parallelPicture((address) => {
      const answer = ask(address);
      return answer.status === 200 ? JSON.parse(answer.text) : null;
    });
    place(parallel, picture || SOON);
  }
  for (const image of document.querySelectorAll("img[loading=lazy]")) image.loading = "eager";
}

function clear() {
  for (const printed of document.querySelectorAll(".printed")) printed.remove();
}

addEventListener("beforeprint", prepare);
addEventListener("afterprint", clear);
