// Charts of lines with bands, drawn when they come into view, and again when their data change.

const charts = new Map();
const AGAIN = 2000; // milliseconds between two requests of one chart, at least
const seen = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    const chart = charts.get(entry.target);
    if (!chart) continue;
    chart.visible = entry.isIntersecting;
    if (chart.visible && chart.stale) load(entry.target);
  }
}, { rootMargin: "200px" });

export function mountCharts() {
  for (const figure of document.querySelectorAll("[data-chart]")) {
    if (charts.has(figure)) continue;
    charts.set(figure, { stale: true, changed: false, visible: false, have: "", asked: 0, plot: null, data: null });
    seen.observe(figure);
  }
}

export function refreshCharts(onlyMoved) {
  for (const [figure, chart] of charts) {
    if (onlyMoved && figure.dataset.moves === undefined) continue;
    chart.stale = chart.changed = true;
    if (chart.visible) load(figure);
  }
}

// The address asks for something else now: it is not waited for.
export function changeCharts() {
  for (const [figure, chart] of charts) {
    if (figure.dataset.follows === undefined) continue;
    sent(figure);
    chart.asked = 0;
    chart.stale = true;
    if (chart.visible) load(figure);
  }
}

// Every chart with its data; null where it was never in view.
export const drawnCharts = () => [...charts].map(([figure, chart]) => [figure, chart.stale ? null : chart.data]);

// A chart that follows the page's address asks for what that says.
export const source = (figure) => figure.dataset.chart + (figure.dataset.follows === undefined ? "" : location.search);

// The lines of a chart that came with its page.
function sent(figure) {
  const data = figure.querySelector("[data-drawn]");
  if (!data) return null;
  data.remove();
  return { mark: data.dataset.drawn, lines: JSON.parse(data.content.textContent) };
}

async function load(figure) {
  const chart = charts.get(figure);
  if (chart.loading) return;
  const first = sent(figure);
  if (first) {
    // As of when the page was asked for. If anything has changed since then, they are asked for again.
    Object.assign(chart, { have: first.mark, asked: performance.timeOrigin, stale: chart.changed });
    draw(figure, first.lines);
    if (!chart.stale) return;
  }
  const wait = chart.asked + AGAIN - Date.now();
  if (wait > 0) {
    chart.loading = true;
    await new Promise((done) => setTimeout(done, wait));
    chart.loading = false;
  }
  chart.loading = true;
  chart.stale = false;
  chart.asked = Date.now();
  let again = false;
  try {
    const answer = await fetch(source(figure), { headers: chart.have ? { have: chart.have } : {} });
    if (answer.status === 202) {
      chart.stale = true; // being computed; the stream says when, and then it is not waited for
      chart.asked = 0;
    }
    if (answer.status === 200) {
      chart.have = answer.headers.get("have") || "";
      draw(figure, await answer.json());
      again = chart.stale;
    } else if (answer.status >= 400 && !chart.plot) {
      figure.querySelector(".plot").textContent = (await answer.json()).error || "There are no curves.";
    }
  } catch {
    chart.stale = true; // away; the stream says when to try again
  } finally {
    chart.loading = false;
  }
  // Something changed while it was being loaded.
  if (again && chart.visible) load(figure);
}

// light-dark() is resolved only on an element that uses it.
export function resolved(name) {
  const probe = document.createElement("span");
  probe.style.color = `var(${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}
const faint = (value) => value.replace("rgb(", "rgba(").replace(")", ", 0.15)");

function draw(figure, data) {
  const chart = charts.get(figure);
  const place = figure.querySelector(".plot");
  const columns = [data.epochs];
  const series = [{ label: "epoch" }];
  const bands = [];
  data.lines.forEach((line, at) => {
    const ink = resolved(`--line-${at % 8}`);
    const name = line.seeds > 1 ? `${line.name} (${line.seeds} seeds${line.stopped ? `, ${line.stopped} stopped` : ""})` : line.name;
    series.push({
      label: name, stroke: ink, width: 2, spanGaps: false,
      dash: at >= 4 ? [6, 3] : undefined,
      value: (_, value) => said(value, data.scale),
      points: { show: line.best_epoch > 0, size: 7, fill: ink, filter: (u, index, show) => (show ? [data.epochs.indexOf(line.best_epoch)].filter((one) => one >= 0) : []) },
    });
    columns.push(line.mean);
    if (line.seeds > 1) {
      const hidden = { stroke: "transparent", width: 0, points: { show: false }, label: "", class: "band" };
      columns.push(line.high, line.low);
      series.push({ ...hidden }, { ...hidden });
      bands.push({ series: [series.length - 2, series.length - 1], fill: faint(ink) });
    }
  });
  const grey = faint(resolved("--ink")).replace("0.15", "0.35");
  for (const stray of data.strays || []) {
    columns.push(stray.values);
    series.push({ label: "", stroke: grey, width: 1, spanGaps: false, points: { show: false }, class: "band" });
  }
  chart.range = data.range;
  chart.data = data;
  behind(figure, data);
  const note = figure.querySelector(".note") || figure.appendChild(Object.assign(document.createElement("p"), { className: "note soft" }));
  note.textContent = data.lines.length || columns.length > 1 ? data.note || "" : data.note || "No trial has run to its end yet, so there are no curves.";
  // The same lines with more epochs: the chart stays, with what was zoomed in on.
  const shape = series.map((one) => one.label).join("\n") + data.label + !data.range + data.log;
  if (chart.plot && chart.shape === shape) {
    chart.plot.setData(columns);
    return;
  }
  if (chart.plot) chart.plot.destroy();
  place.replaceChildren();
  chart.plot = null;
  if (columns.length < 2) return;
  const ink = resolved("--soft");
  const grid = { stroke: resolved("--line"), width: 1 };
  chart.shape = shape;
  chart.plot = new uPlot({
    width: place.clientWidth || 600, height: Math.max(240, Math.min(380, place.clientWidth * 0.5)),
    series, bands,
    scales: { x: { time: false }, y: { distr: data.log ? 3 : 1, ...(data.range ? { range: () => chart.range } : {}) } },
    axes: [
      { stroke: ink, grid, ticks: grid, label: "epoch", labelSize: 20, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000] },
      {
        stroke: ink, grid, ticks: grid, label: data.label, labelSize: 20, size: 60,
        ...(data.scale === 1 ? {} : { values: (_, values) => values.map((value) => (value === null ? null : `${Number((value * data.scale).toPrecision(6))}`.replace("-", "−"))) }),
      },
    ],
    legend: { live: false },
    cursor: { focus: { prox: 24 } },
    focus: { alpha: 0.35 },
  }, columns, place);
  const legend = place.querySelectorAll(".u-legend .u-series");
  for (const [at, one] of series.entries()) {
    // The legend has no row for the epochs.
    if (one.class === "band") legend[at - 1].classList.add("unlisted");
  }
}

// A value as people read it: accuracies in per cent, with as many digits as in tables.
function said(value, scale) {
  if (value === null || value === undefined) return "–";
  return (scale === 1 ? value.toPrecision(4) : (value * scale).toFixed(1)).replace("-", "−");
}

// The same figures for those who do not see the chart.
function behind(figure, data) {
  const place = figure.querySelector("[data-table]");
  if (!place) return;
  const row = (tag, cells) => {
    const line = document.createElement("tr");
    line.append(...cells.map((text, at) => Object.assign(document.createElement(tag), { textContent: text, className: at ? "figure" : "" })));
    return line;
  };
  const table = document.createElement("table");
  table.createCaption().textContent = data.label;
  table.createTHead().append(row("th", ["line", "seeds", "stopped", "best epoch", "at the best epoch", "last epoch", "at the last epoch"]));
  table.createTBody().append(...data.lines.map((line) => {
    const last = line.mean.findLastIndex((value) => value !== null);
    const best = data.epochs.indexOf(line.best_epoch);
    return row("td", [line.name, line.seeds, line.stopped, line.best_epoch || "–", said(line.mean[best], data.scale), last < 0 ? "–" : data.epochs[last], said(line.mean[last], data.scale)]);
  }));
  place.replaceChildren(table);
}

new ResizeObserver(() => {
  for (const [figure, chart] of charts) {
    const place = figure.querySelector(".plot");
    if (chart.plot && place.clientWidth && place.clientWidth !== chart.plot.width) {
      chart.plot.setSize({ width: place.clientWidth, height: chart.plot.height });
    }
  }
}).observe(document.documentElement);
// Colours of a drawn chart do not follow the system by themselves.
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const [figure, chart] of charts) {
    chart.have = "";
    chart.shape = "";
    if (chart.visible) load(figure);
  }
});
