// Parallel coordinates: lines on a canvas, axes and brushes over it. What is brushed becomes
// conditions in the address; which lines fulfil them the server says.
import { resolved } from "./charts.js";

const AGAIN = 2000; // milliseconds between two requests, at least
const TOP = 34, BOTTOM = 40, SIDE = 88, NARROWEST = 96, HEIGHT = 400, PAPER = 720;
const TERM = /\s*([^\s<>=!:"']+)\s*(<=|>=|!=|==|=|<|>|:)\s*("[^"]*"|'[^']*'|[^\s"']*)(?=\s|$)/g;

const space = document.createRange().createContextualFragment("<svg></svg>").firstChild.namespaceURI;

let chart = null;
let choose = () => {};

export function mountParallel(go) {
  choose = go;
  const figure = document.querySelector("[data-parallel]");
  if (!figure) return;
  chart = { figure, place: figure.querySelector(".lines"), said: figure.querySelector("[data-said]"),
    data: null, have: "", stale: true, visible: false, loading: false, asked: 0, at: null };
  new IntersectionObserver(([entry]) => {
    chart.visible = entry.isIntersecting;
    if (chart.visible && chart.stale) load();
  }, { rootMargin: "200px" }).observe(figure);
  document.body.addEventListener("changed", () => refresh());
  new ResizeObserver(() => { if (chart.data && chart.width !== chart.place.clientWidth) draw(); }).observe(chart.place);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { if (chart.data) draw(); });
}

function refresh() {
  chart.stale = true;
  if (chart.visible) load();
}

// The address asks for something else now.
export function changeParallel() {
  if (!chart) return;
  chart.asked = 0;
  refresh();
}

async function load() {
  if (chart.loading) return;
  chart.loading = true;
  try {
    while (chart.stale && chart.visible) {
      const wait = chart.asked + AGAIN - Date.now();
      if (wait > 0) await new Promise((done) => setTimeout(done, wait));
      chart.stale = false;
      chart.asked = Date.now();
      const answer = await fetch(chart.figure.dataset.parallel + location.search, { headers: chart.have ? { have: chart.have } : {} });
      if (answer.status === 200) {
        chart.have = answer.headers.get("have") || "";
        chart.data = await answer.json();
        draw();
      } else if (answer.status >= 400) {
        const error = (await answer.json()).error;
        if (!chart.data || answer.status === 400) chart.said.textContent = error;
      } else if (answer.status === 202) {
        break; // being computed; the stream says when
      }
    }
  } catch {
    chart.stale = true; // away; the stream says when to try again
  } finally {
    chart.loading = false;
  }
}

const x = (at) => SIDE + (at * (chart.width - 2 * SIDE)) / Math.max(1, chart.data.axes.length - 1);
const y = (place) => TOP + (1 - place) * (HEIGHT - TOP - BOTTOM);

function element(name, attributes, text) {
  const one = document.createElementNS(space, name);
  for (const [key, value] of Object.entries(attributes)) one.setAttribute(key, value);
  if (text !== undefined) one.textContent = text;
  return one;
}

function draw() {
  const { place, data } = chart;
  chart.width = place.clientWidth;
  const outer = Math.max(place.clientWidth, 2 * SIDE + NARROWEST * (data.axes.length - 1));
  chart.width = outer;
  const canvas = document.createElement("canvas");
  const dense = window.devicePixelRatio || 1;
  Object.assign(canvas, { width: outer * dense, height: HEIGHT * dense });
  canvas.className = "ink";
  const svg = element("svg", { viewBox: `0 0 ${outer} ${HEIGHT}`, width: outer, height: HEIGHT });
  chart.canvas = canvas;
  paint();
  data.axes.forEach((axis, at) => svg.append(axisOf(axis, at)));
  svg.addEventListener("pointermove", hover);
  svg.addEventListener("pointerleave", () => point(null));
  place.replaceChildren(canvas, svg);
  chart.width = outer;
  chart.said.textContent = data.note;
}

// The same as one SVG, for paper; `ask` returns the data of an address at once.
export function parallelPicture(ask) {
  const data = chart.data && !chart.stale ? chart.data : ask(chart.figure.dataset.parallel + location.search);
  if (!data) return null;
  const { data: shown, width } = chart;
  chart.data = data;
  chart.width = Math.max(PAPER, 2 * SIDE + NARROWEST * (data.axes.length - 1));
  const svg = element("svg", { viewBox: `0 0 ${chart.width} ${HEIGHT}` });
  for (const line of data.lines) {
    const { step, width: wide, alpha, dash } = styleOf(line);
    const points = line.places.map((place, at) => place === null ? "" : `${x(at).toFixed(1)},${y(place).toFixed(1)}`).join(" ");
    svg.append(element("polyline", { class: `thread ${step}`, points, "stroke-width": wide, "stroke-opacity": alpha, "stroke-dasharray": dash.join(" ") }));
  }
  data.axes.forEach((axis, at) => svg.append(axisOf(axis, at)));
  chart.data = shown;
  chart.width = width;
  return svg;
}

// How a line looks: by which step of the ramp, how wide, how strong.
function styleOf(line) {
  if (!line.chosen) return { step: "other", width: 1, alpha: 0.7, dash: [] };
  const last = line.places[line.places.length - 1];
  if (last === null) return { step: "lost", width: 1, alpha: 0.6, dash: [3, 3] };
  const good = chart.data.larger ? last : 1 - last;
  const step = Math.min(4, Math.floor(good * 5));
  return { step: `ramp-${step}`, width: step === 4 ? 1.8 : 1.2, alpha: chart.data.lines.length > 200 ? 0.6 : 0.9, dash: [] };
}

function paint() {
  const { canvas, data } = chart;
  const pen = canvas.getContext("2d");
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, canvas.width, canvas.height);
  const dense = canvas.height / HEIGHT;
  pen.setTransform(dense, 0, 0, dense, 0, 0);
  const inks = { other: resolved("--line"), lost: resolved("--soft") };
  for (const step of [0, 1, 2, 3, 4]) inks[`ramp-${step}`] = resolved(`--ramp-${step}`);
  for (const line of data.lines) {
    const style = styleOf(line);
    trace(pen, line, { ...style, ink: inks[style.step] });
  }
  if (chart.at) trace(pen, chart.at, { ink: resolved("--line-1"), width: 3, alpha: 1, dash: [] });
}

function trace(pen, line, { ink, width, alpha, dash }) {
  pen.strokeStyle = ink;
  pen.lineWidth = width;
  pen.globalAlpha = alpha;
  pen.setLineDash(dash);
  pen.beginPath();
  line.places.forEach((place, at) => {
    if (place === null) return;
    if (at) pen.lineTo(x(at), y(place));
    else pen.moveTo(x(at), y(place));
  });
  pen.stroke();
}

function axisOf(axis, at) {
  const group = element("g", { class: "axis", transform: `translate(${x(at)} 0)` });
  group.append(element("line", { y1: y(1), y2: y(0) }));
  const last = at === chart.data.axes.length - 1;
  group.append(element("text", { class: "title", y: 16, "text-anchor": last ? "end" : at ? "middle" : "start", x: last ? 60 : at ? 0 : -60 }, axis.name));
  for (const tick of axis.ticks) {
    group.append(element("line", { class: "tick", x1: -4, x2: 4, y1: y(tick.place), y2: y(tick.place) }));
    const label = tick.label.length > 14 ? `${tick.label.slice(0, 13)}…` : tick.label;
    group.append(element("text", { x: last ? 8 : -8, y: y(tick.place) + 4, "text-anchor": last ? "start" : "end" }, label));
  }
  const brush = element("rect", { class: "brush", x: -9, width: 18, y: 0, height: 0 });
  if (axis.brush) span(brush, axis.brush[0], axis.brush[1]);
  const grip = element("rect", { class: "grip", x: -18, width: 36, y: TOP - 8, height: HEIGHT - TOP - BOTTOM + 44 });
  grip.append(element("title", {}, `Drag to select a range of ${axis.name}; click to clear it`));
  grip.addEventListener("pointerdown", (event) => drag(event, axis, brush, grip));
  group.append(brush, grip);
  return group;
}

function span(brush, low, high) {
  brush.setAttribute("y", y(high) - 3);
  brush.setAttribute("height", y(low) - y(high) + 6);
}

function drag(event, axis, brush, grip) {
  if (event.button) return;
  event.preventDefault();
  grip.setPointerCapture(event.pointerId);
  const place = (one) => {
    const box = chart.canvas.getBoundingClientRect();
    return Math.max(-0.12, Math.min(1.02, 1 - (one.clientY - box.top - TOP) / (HEIGHT - TOP - BOTTOM)));
  };
  const from = place(event);
  let to = from;
  const move = (one) => {
    to = place(one);
    span(brush, Math.min(from, to), Math.max(from, to));
  };
  const end = () => {
    grip.removeEventListener("pointermove", move);
    const moved = Math.abs(to - from) > 0.01;
    select(axis, moved ? termsOf(axis, Math.min(from, to), Math.max(from, to)) : []);
  };
  grip.addEventListener("pointermove", move);
  grip.addEventListener("pointerup", end, { once: true });
  grip.addEventListener("pointercancel", end, { once: true });
}

// The conditions that leave what is between two places of an axis.
function termsOf(axis, low, high) {
  const within = axis.ticks.filter((tick) => tick.text !== null && tick.place >= low - 0.01 && tick.place <= high + 0.01);
  if (axis.low === null) return within.length ? [`${axis.column}:${within.map((tick) => tick.text).join(",")}`] : [];
  if (high < 0) return within.length ? [`${axis.column}=`] : [];
  const terms = [];
  if (low > 0) terms.push(`${axis.column}>=${written(axis, low)}`);
  if (high < 1) terms.push(`${axis.column}<=${written(axis, high)}`);
  return terms;
}

function written(axis, place) {
  const value = axis.log
    ? Math.exp(Math.log(axis.low) + place * (Math.log(axis.high) - Math.log(axis.low)))
    : axis.low + place * (axis.high - axis.low);
  return Number(value.toPrecision(4)).toString();
}

function select(axis, terms) {
  const url = new URL(location.href);
  const kept = [...(url.searchParams.get("q") || "").matchAll(TERM)].filter((one) => one[1] !== axis.column).map((one) => one[0].trim());
  const q = [...kept, ...terms].join(" ");
  if (q) url.searchParams.set("q", q);
  else url.searchParams.delete("q");
  if (url.href === location.href) draw();
  choose(url);
}

function hover(event) {
  const box = chart.canvas.getBoundingClientRect();
  const px = event.clientX - box.left, py = event.clientY - box.top;
  let best = null, least = 8;
  for (const line of chart.data.lines) {
    if (!line.chosen) continue;
    for (let at = 1; at < line.places.length; at++) {
      const from = x(at - 1), to = x(at);
      if (px < from || px > to || line.places[at] === null) continue;
      const here = y(line.places[at - 1]) + ((px - from) / (to - from)) * (y(line.places[at]) - y(line.places[at - 1]));
      const far = Math.abs(here - py);
      if (far <= least) [best, least] = [line, far];
    }
  }
  point(best);
}

function point(line) {
  if (chart.at === line) return;
  chart.at = line;
  chart.said.textContent = line ? line.said : chart.data.note;
  paint();
}
