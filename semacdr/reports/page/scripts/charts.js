// Charts as SVG of our own: axes with labels, marks with a title that says the numbers.

const WIDTH = 640;

function ticks(low, high, wanted = 5) {
  const span = high - low || 1;
  const power = 10 ** Math.floor(Math.log10(span / wanted));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => span / size <= wanted);
  const found = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1) found.push(place * step);
  return { found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function scale([low, high], [from, to]) {
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

function drawing(height, label, ...children) {
  return s("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": label }, children);
}

function legend(names) {
  return h("div", { class: "legend" },
    names.map((name, place) => h("span", { class: colour(place) }, h("i"), h("span", null, name))));
}

// A row for each label, a dot for each series in it, with a whisker from low to high where they are given.
// rows: {label, note, points: [{series, value, low, high, title, bar}]}; a bar goes from the base to the value.
// base: a value that the axis shows in any case, and a line at it; marks: {value, label}, broken lines.
function dots(rows, { axis, base = null, marks = [], format = (value, digits) => value.toFixed(digits) }) {
  const left = Math.min(250, Math.max(90, 7 * Math.max(...rows.map((row) => row.label.length)) + 12));
  const right = rows.some((row) => row.note) ? 70 : 14;
  const perRow = 12 + 8 * Math.max(1, ...rows.map((row) => new Set(row.points.map((point) => point.series)).size));
  const bottom = 10 + rows.length * perRow;
  const values = rows.flatMap((row) => row.points.flatMap((point) => [point.low, point.value, point.high]));
  const all = [...values, ...marks.map((mark) => mark.value), base].filter((value) => value !== null && value !== undefined);
  let [low, high] = [Math.min(...all), Math.max(...all)];
  const room = (high - low || Math.abs(high) || 1) * 0.04;
  [low, high] = [low === base ? low : low - room, high + room];
  const x = scale([low, high], [left, WIDTH - right]);
  const { found, digits } = ticks(low, high);
  return drawing(bottom + 42, axis,
    found.map((tick) => [
      s("path", { class: "grid", d: `M${x(tick)} 6V${bottom}` }),
      s("text", { class: "soft", x: x(tick), y: bottom + 16, "text-anchor": "middle" }, format(tick, digits)),
    ]),
    base !== null && low < base ? s("path", { class: "zero", d: `M${x(base)} 6V${bottom}` }) : null,
    marks.map((mark) => [
      s("path", { class: "zero", "stroke-dasharray": "4 3", d: `M${x(mark.value)} 6V${bottom}` }),
      s("text", { class: "soft", x: x(mark.value) + 4, y: 14 }, mark.label),
    ]),
    s("text", { class: "soft", x: (left + WIDTH - right) / 2, y: bottom + 36, "text-anchor": "middle" }, axis),
    rows.map((row, place) => {
      const top = 10 + place * perRow;
      return [
        s("text", { x: left - 10, y: top + perRow / 2 + 3, "text-anchor": "end" }, row.label),
        row.note ? s("text", { class: "soft", x: WIDTH - right + 8, y: top + perRow / 2 + 3 }, row.note) : null,
        row.points.map((point, index) => {
          const y = point.bar ? top + perRow / 2 : top + (perRow * (index + 1)) / (row.points.length + 1);
          if (point.bar) {
            const [from, to] = [x(base), x(point.value)].sort((a, b) => a - b);
            return s("rect", { class: `fill ${colour(point.series)}`, x: from, y: y - 5, width: to - from, height: 10 }, s("title", null, point.title));
          }
          return s("g", { class: colour(point.series) }, s("title", null, point.title),
            point.low === undefined || point.low === null ? null
              : s("path", { class: "stroke", d: `M${x(point.low)} ${y}H${x(point.high)}`, "stroke-width": 1.5 }),
            s("circle", { class: "fill", cx: x(point.value), cy: y, r: 4 }));
        }),
      ];
    }));
}

// series: {name, x, y}; a y that is null breaks nothing, it is left out.
function lines(series, { xAxis, yAxis, points = false }) {
  const [left, bottom, height] = [58, 190, 236];
  const kept = series.map((one) => ({ ...one, at: one.x.map((x, place) => [x, one.y[place]]).filter(([, y]) => y !== null) }));
  const xs = kept.flatMap((one) => one.at.map(([x]) => x));
  const ys = kept.flatMap((one) => one.at.map(([, y]) => y));
  const [low, high] = [Math.min(...ys), Math.max(...ys)];
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  const x = scale([Math.min(...xs), Math.max(...xs)], [left, WIDTH - 14]);
  const y = scale([low - room, high + room], [bottom, 10]);
  const [across, up] = [ticks(Math.min(...xs), Math.max(...xs), 8), ticks(low - room, high + room)];
  return drawing(height, `${yAxis} by ${xAxis}`,
    up.found.map((tick) => [
      s("path", { class: "grid", d: `M${left} ${y(tick)}H${WIDTH - 14}` }),
      s("text", { class: "soft", x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, tick.toFixed(up.digits)),
    ]),
    across.found.map((tick) =>
      s("text", { class: "soft", x: x(tick), y: bottom + 16, "text-anchor": "middle" }, tick.toFixed(across.digits))),
    s("text", { class: "soft", x: (left + WIDTH) / 2, y: bottom + 36, "text-anchor": "middle" }, xAxis),
    s("text", { class: "soft", x: 12, y: 100, "text-anchor": "middle", transform: "rotate(-90 12 100)" }, yAxis),
    kept.map((one, place) => s("g", { class: colour(place) },
      s("path", { class: "line stroke", d: `M${one.at.map(([a, b]) => `${x(a).toFixed(1)} ${y(b).toFixed(1)}`).join("L")}` }),
      points ? one.at.map(([a, b]) => s("circle", { class: "fill", cx: x(a), cy: y(b), r: 3 }, s("title", null, `${a}: ${b}`))) : null)));
}

// Each row is a whole, cut into shares. rows: {label, note, parts: [share]}; names: of the parts.
function shares(rows, names, axis) {
  const left = Math.min(250, Math.max(90, 7 * Math.max(...rows.map((row) => row.label.length)) + 12));
  const [right, perRow] = [80, 24];
  const bottom = 6 + rows.length * perRow;
  const x = scale([0, 1], [left, WIDTH - right]);
  return [legend(names), drawing(bottom + 40, axis,
    [0, 0.25, 0.5, 0.75, 1].map((tick) =>
      s("text", { class: "soft", x: x(tick), y: bottom + 16, "text-anchor": "middle" }, `${100 * tick} %`)),
    s("text", { class: "soft", x: x(0.5), y: bottom + 34, "text-anchor": "middle" }, axis),
    rows.map((row, place) => {
      const top = 4 + place * perRow;
      let from = 0;
      return [
        s("text", { x: left - 10, y: top + 14, "text-anchor": "end" }, row.label),
        s("text", { class: "soft", x: WIDTH - right + 8, y: top + 14 }, row.note),
        row.parts.map((part, index) => {
          from += part;
          return part === 0 ? null : s("rect", { class: `fill ${colour(index)}`, x: x(from - part), y: top + 2, height: perRow - 7,
            width: x(from) - x(from - part) }, s("title", null, `${row.label}, ${names[index]}: ${percent(part)}`));
        }),
      ];
    }))];
}

// points: {x, y, series, title}, in -limit..limit both ways. The one nearest to the pointer is named below.
function scatter(points, limit, { xAxis, yAxis }) {
  const [size, left] = [420, 40];
  const x = scale([-limit, limit], [left, left + size]);
  const y = scale([-limit, limit], [size, 0]);
  const bySeries = new Map();
  for (const point of points) {
    const place = `M${x(point.x).toFixed(1)} ${y(point.y).toFixed(1)}h.01`;
    bySeries.set(point.series, (bySeries.get(point.series) ?? "") + place);
  }
  const ring = s("circle", { class: "ring", r: 6, visibility: "hidden" });
  const named = h("output", { "aria-live": "off" }, "Point at the map to read a title.");
  const picture = s("svg", { viewBox: `0 0 ${left + size + 10} ${size + 30}`, role: "img", "aria-label": `${xAxis}, ${yAxis}` },
    s("path", { class: "axis", d: `M${left} 0V${size}H${left + size}` }),
    s("text", { class: "soft", x: left + size / 2, y: size + 20, "text-anchor": "middle" }, xAxis),
    s("text", { class: "soft", x: 14, y: size / 2, "text-anchor": "middle", transform: `rotate(-90 14 ${size / 2})` }, yAxis),
    [...bySeries].map(([series, d]) => s("path", { class: `points stroke ${colour(series)}`, d })), ring);
  picture.addEventListener("pointermove", (event) => {
    const box = picture.getBoundingClientRect();
    const ratio = (left + size + 10) / box.width;
    const [px, py] = [(event.clientX - box.left) * ratio, (event.clientY - box.top) * ratio];
    const distance = (point) => (x(point.x) - px) ** 2 + (y(point.y) - py) ** 2;
    const nearest = points.reduce((best, point) => (distance(point) < distance(best) ? point : best));
    ring.setAttribute("cx", x(nearest.x));
    ring.setAttribute("cy", y(nearest.y));
    ring.setAttribute("visibility", "visible");
    named.textContent = nearest.title;
  });
  return [picture, named];
}
