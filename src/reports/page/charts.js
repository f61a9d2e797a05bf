// The two charts that follow what is chosen in the page: the forest plot and the curves.

const DASHES = ["", "7 3", "2 2.5", "10 3 2 3"];

/** Colour and dash of a variant: 28 pairs, so that none is told by its colour alone. */
function trace(place, dash = place) {
  return { stroke: `var(--line-${place % 7})`, "stroke-dasharray": DASHES[dash % 4] };
}

function swatch(look) {
  return draw("svg", { class: "swatch", width: 26, height: 8, "aria-hidden": "true" },
    draw("line", { x1: 0, x2: 26, y1: 4, y2: 4, "stroke-width": 2.4, ...look }));
}

/** Round numbers from low to high, about as many as asked for. */
function ticks(low, high, count) {
  const rough = (high - low || 1) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((s) => s >= rough);
  const found = [];
  for (let n = Math.ceil(low / step); n * step <= high + 1e-9 * step; n++) found.push(n * step);
  return { values: found, digits: Math.max(0, -Math.floor(Math.log10(step) + 1e-9)) };
}

function scale(low, high, from, to) {
  return (value) => from + ((value - low) / (high - low || 1)) * (to - from);
}

/** Which rows would squeeze the others into a spot: more than five times as far from 0 as the next one, or as 2 points. */
function farOff(rows) {
  const sizes = rows.map((row) => Math.abs(row.mean ?? 0)).sort((a, b) => a - b);
  const from = sizes.findIndex((size, at) => 2 * at >= sizes.length && size > 5 * Math.max(sizes[at - 1] ?? 0, 2));
  return (row) => from > 0 && Math.abs(row.mean ?? 0) >= sizes[from];
}

/**
 * Differences with their intervals, a row each.
 * Rows: name, mean, interval or null, differences of single seeds, published difference or null, class, sentence.
 */
function forest(place, rows, width) {
  const narrow = width < 620; // then names stand above their lines
  const longest = Math.max(0, ...rows.map((row) => row.name.length));
  const left = narrow ? 8 : Math.min(0.4 * width, 7 * longest + 24);
  const right = narrow ? 8 : 190;
  const height = narrow ? 44 : 28;
  const bottom = rows.length * height + 12;
  const far = farOff(rows);
  const all = rows.filter((row) => !far(row)).flatMap((row) => [row.mean, ...(row.interval ?? []), ...row.differences, row.published]);
  const known = [0, ...all.filter((value) => value != null)];
  const [low, high] = [Math.min(...known), Math.max(...known)];
  const pad = 0.05 * (high - low || 1);
  const within = scale(low - pad, high + pad, left, width - right);
  const x = (value) => Math.min(Math.max(within(value), left), width - right);
  const marks = ticks(low - pad, high + pad, narrow ? 4 : 7);
  const parts = marks.values.flatMap((value) => [
    draw("line", { x1: x(value), x2: x(value), y1: 4, y2: bottom, class: "grid" }),
    draw("text", { x: x(value), y: bottom + 16, "text-anchor": "middle", class: "quiet-text" }, signed(value, marks.digits)),
  ]);
  parts.push(draw("line", { x1: x(0), x2: x(0), y1: 4, y2: bottom, class: "zero" }));
  parts.push(draw("text", { x: (left + width - right) / 2, y: bottom + 34, "text-anchor": "middle", class: "quiet-text" },
    "difference of test top-1, percentage points"));
  rows.forEach((row, at) => {
    const y = 4 + at * height + (narrow ? 30 : height / 2);
    const group = draw("g", { class: row.mark }, draw("title", {}, row.sentence));
    if (far(row)) {
      const [edge, tip] = row.mean < 0 ? [left, 8] : [width - right, -8]; // the numbers beside it say how far it is
      group.append(draw("path", { d: `M${edge} ${y}l${tip} -5v10z`, class: "far", stroke: "none" }));
    } else {
      for (const value of row.differences)
        group.append(draw("circle", { cx: x(value), cy: y, r: 2.6, class: "seed", stroke: "none" }));
      if (row.interval)
        group.append(draw("line", { x1: x(row.interval[0]), x2: x(row.interval[1]), y1: y, y2: y, "stroke-width": 2 }));
      if (row.mean != null)
        group.append(draw("rect", { x: x(row.mean) - 4, y: y - 4, width: 8, height: 8, stroke: "none" }));
    }
    if (row.published != null)
      group.append(draw("path", { d: `M${x(row.published)} ${y - 6}l5 6l-5 6l-5 -6z`, class: "published" }));
    const numbers = row.mean == null ? "no common seed" : `${signed(row.mean, 2)}${row.interval ? ` (${interval(row.interval, 1)})` : ""}`;
    parts.push(group);
    parts.push(narrow
      ? draw("text", { x: left, y: y - 14 }, fitting(row.name, width - 8 - 6.5 * numbers.length))
      : draw("text", { x: left - 12, y: y + 4, "text-anchor": "end" }, fitting(row.name, left - 16)));
    parts.push(narrow
      ? draw("text", { x: width - 4, y: y - 14, "text-anchor": "end", class: "quiet-text" }, numbers)
      : draw("text", { x: width - right + 14, y: y + 4, class: "quiet-text" }, numbers));
  });
  const sentences = rows.map((row) => row.sentence).join("; ");
  place.replaceChildren(draw("svg", { width, height: bottom + 42, role: "img", "aria-label": `Forest plot: ${sentences}` }, ...parts));
}

/** A name cut to so many pixels, by the width of an ordinary letter; its row has the whole one in its title. */
function fitting(name, pixels) {
  const letters = Math.max(4, Math.floor(pixels / 6.6));
  return name.length <= letters ? name : `${name.slice(0, letters - 1)}…`;
}

/**
 * Curves over training steps.
 * Series: look (of `trace`), steps, values, and band or null, half its height by step.
 * Returns what moves the line that marks a step.
 */
function lines(place, series, { width, unit, name, choose }) {
  const height = Math.max(220, Math.min(360, 0.55 * width));
  const [left, right, top, bottom] = [52, 10, 10, height - 40];
  const steps = series.flatMap((one) => [one.steps[0], one.steps.at(-1)]);
  let [low, high] = [Infinity, -Infinity];
  for (const one of series)
    one.values.forEach((value, at) => {
      const band = one.band?.[at] ?? 0;
      low = Math.min(low, value - band);
      high = Math.max(high, value + band);
    });
  const pad = 0.04 * (high - low || Math.abs(high) || 1);
  const [first, last] = [Math.min(0, ...steps), Math.max(...steps)];
  const x = scale(first, last, left, width - right);
  const y = scale(low - pad, high + pad, bottom, top);
  const [across, up] = [ticks(first, last, width / 110), ticks(low - pad, high + pad, 6)];
  const parts = [
    ...up.values.flatMap((value) => [
      draw("line", { x1: left, x2: width - right, y1: y(value), y2: y(value), class: "grid" }),
      draw("text", { x: left - 7, y: y(value) + 4, "text-anchor": "end", class: "quiet-text" }, number(value, up.digits)),
    ]),
    ...across.values.map((value) =>
      draw("text", { x: x(value), y: bottom + 17, "text-anchor": "middle", class: "quiet-text" }, value.toLocaleString("en"))),
    draw("line", { x1: left, x2: width - right, y1: bottom, y2: bottom, class: "axis" }),
    draw("text", { x: (left + width - right) / 2, y: bottom + 35, "text-anchor": "middle", class: "quiet-text" }, "training step"),
  ];
  for (const one of series) {
    const at = one.steps.map((step, place) => [x(step), one.values[place], one.band?.[place] ?? 0]);
    if (one.band) {
      const edge = [...at.map(([px, v, b]) => [px, y(v + b)]), ...at.toReversed().map(([px, v, b]) => [px, y(v - b)])];
      parts.push(draw("path", { d: `${path(edge)}z`, fill: one.look.stroke, opacity: 0.1 }));
    }
    const line = at.map(([px, value]) => [px, y(value)]);
    parts.push(line.length === 1
      ? draw("circle", { cx: line[0][0], cy: line[0][1], r: 3, fill: one.look.stroke })
      : draw("path", { d: path(line), fill: "none", "stroke-width": one.thin ? 1.3 : 2, "stroke-linejoin": "round", ...one.look, class: "curve" }));
  }
  const mark = draw("line", { y1: top, y2: bottom, class: "axis", visibility: "hidden" });
  const label = `${name}${unit ? ` in ${unit}` : ""} over training steps, ${counted(series.length, "line")}; the table beside it has the values`;
  const chart = draw("svg", { width, height, role: "img", "aria-label": label,
    pointermove: (event) => choose(first + ((event.offsetX - left) / (width - right - left)) * (last - first)) }, ...parts, mark);
  place.replaceChildren(chart);
  return (step) => {
    mark.setAttribute("x1", x(step));
    mark.setAttribute("x2", x(step));
    mark.setAttribute("visibility", "visible");
  };
}

function path(points) {
  return points.map(([px, py], at) => `${at ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
}
