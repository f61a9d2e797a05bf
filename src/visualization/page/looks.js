// What is chosen (`view`, kept in the address) and what is drawn on the picture. Places are tenths of its pixels.

const doc = JSON.parse(find("data").textContent);
const [LEFT, TOP, RIGHT, BOTTOM] = doc.shown;
const MOVED = "#ff8c1a", STILL = "#56b4e9", RIM = "#101214";
const MASS = [[59, 15, 112], [182, 54, 121], [251, 136, 97], [252, 253, 191]];
const BRIGHTEST = 4; // times an even share, where colours end unless the strongest key has more
const WIDEST = 16; // pixels of the screen, the greatest radius of a circle
const LISTED = 8; // of the strongest keys
const MODES = ["query", "made", "keys", "points"];

const unpacked = new Map();
const picture = new Image();
let view;

// ------------------------------------------------------------------------------------------ numbers

function bytes(text) {
  return Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
}

function tenths(text) {
  return Array.from(new Int16Array(bytes(text).buffer), (value) => value / 10);
}

function floats(text) {
  return new Float32Array(bytes(text).buffer);
}

/** A block with its numbers as arrays, made when it is first shown. */
function block(name) {
  if (!unpacked.has(name)) {
    const packed = doc.blocks.find((one) => one.name === name);
    unpacked.set(name, {
      ...packed,
      places: tenths(packed.places),
      points: tenths(packed.points),
      reference: packed.reference && tenths(packed.reference),
      weights: bytes(packed.weights),
      tops: floats(packed.tops),
      received: { ...packed.received, places: tenths(packed.received.places), mass: floats(packed.received.mass) },
      trace: { ...packed.trace, shares: bytes(packed.trace.shares), tops: floats(packed.trace.tops) },
    });
  }
  return unpacked.get(name);
}

function groupOf(one, head) {
  return Math.floor(head / (one.heads / one.groups));
}

/** Keys of a query: x, y, the group they belong to, and their share of what the chosen heads attend to. */
function keysOf(one, query) {
  const count = one.rows * one.columns;
  const found = [];
  for (let group = 0; group < one.groups; group++) {
    if (view.group !== "all" && Number(view.group) !== group) continue;
    const shares = new Float64Array(one.keys);
    for (let head = 0; head < one.heads; head++) {
      if (groupOf(one, head) !== group || (view.head !== "mean" && Number(view.head) !== head)) continue;
      const row = head * count + query;
      for (let key = 0; key < one.keys; key++) shares[key] += (one.weights[row * one.keys + key] / 255) * one.tops[row];
    }
    const from = (group * (one.shared ? 1 : count) + (one.shared ? 0 : query)) * one.keys;
    shares.forEach((share, key) => {
      if (share > 0) found.push({ x: one.points[2 * (from + key)], y: one.points[2 * (from + key) + 1], group, share });
    });
  }
  const total = found.reduce((sum, key) => sum + key.share, 0) || 1;
  for (const key of found) key.share /= total;
  return found.sort((a, b) => b.share - a.share);
}

function place(one, query) {
  return [one.places[2 * query], one.places[2 * query + 1]];
}

function nearest(one, x, y) {
  let best = 0;
  let least = Infinity;
  for (let query = 0; query < one.rows * one.columns; query++) {
    const [qx, qy] = place(one, query);
    const far = (qx - x) ** 2 + (qy - y) ** 2;
    if (far < least) [best, least] = [query, far];
  }
  return best;
}

// ------------------------------------------------------------------------------------------ drawing

function colour(part, opacity = 1) {
  const at = Math.min(Math.max(part, 0), 1) * (MASS.length - 1);
  const [low, high] = [MASS[Math.floor(at)], MASS[Math.ceil(at)]];
  const mixed = low.map((value, channel) => Math.round(value + (high[channel] - value) * (at % 1)));
  return `rgb(${mixed.join(" ")} / ${opacity})`;
}

/** The canvas in its size on the screen, with the picture; returns what draws on it, in pixels of the picture. */
function begin() {
  const canvas = find("canvas");
  const wide = canvas.clientWidth || 600;
  const high = (wide * (BOTTOM - TOP)) / (RIGHT - LEFT);
  const dots = window.devicePixelRatio || 1;
  canvas.style.aspectRatio = `${RIGHT - LEFT} / ${BOTTOM - TOP}`;
  canvas.width = Math.round(wide * dots);
  canvas.height = Math.round(high * dots);
  const pen = canvas.getContext("2d");
  const scale = canvas.width / (RIGHT - LEFT);
  pen.imageSmoothingEnabled = scale < 4; // large pixels of a small image stay pixels
  pen.filter = "grayscale(55%)";
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  pen.filter = "none";
  const [left, top, width, height] = doc.frame;
  const x = (value) => (value - LEFT) * scale;
  const y = (value) => (value - TOP) * scale;
  pen.fillStyle = "rgb(128 128 128 / 0.65)";
  pen.fill(box(canvas.width, canvas.height, x(left), y(top), width * scale, height * scale), "evenodd");
  return { pen, scale, dots, x, y, side: Math.min(width, height) * scale };
}

function box(wide, high, x, y, width, height) {
  const path = new Path2D();
  path.rect(0, 0, wide, high);
  path.rect(x, y, width, height);
  return path;
}

function dot({ pen, x, y }, px, py, radius, fill, rim) {
  pen.beginPath();
  pen.arc(x(px), y(py), radius, 0, 7);
  pen.fillStyle = fill;
  pen.fill();
  pen.lineWidth = rim;
  pen.stroke();
}

/** Circles by area; the strongest on top. */
function circles(paper, keys, even) {
  const { pen, side, dots } = paper;
  const most = keys.reduce((found, key) => Math.max(found, key.relative), 1e-9);
  const unit = Math.min((0.21 * side) / Math.sqrt(even), (WIDEST * dots) / Math.sqrt(most)); // radius of an even share
  pen.strokeStyle = "#ffffff";
  for (const key of [...keys].reverse()) {
    const radius = unit * Math.sqrt(key.relative);
    const fill = colour(key.relative / Math.max(BRIGHTEST, most));
    if (radius > 0.4) dot(paper, key.x, key.y, radius, fill, Math.min(0.16 * radius, 1.2 * dots));
  }
}

function moves(paper, one) {
  const { pen, x, y, side, dots } = paper;
  const thick = Math.min(Math.max((0.08 * side) / Math.sqrt(one.keys * (one.shared ? 1 : one.rows * one.columns)), 0.6 * dots), 2.2 * dots);
  for (const { from, to } of pointsOf(one)) {
    pen.strokeStyle = RIM;
    if (from) {
      dot(paper, ...from, 1.7 * thick, STILL, 0.5 * thick);
      for (const [style, width] of [[RIM, 2 * thick], [MOVED, thick]]) {
        pen.strokeStyle = style;
        pen.lineWidth = width;
        pen.beginPath();
        pen.moveTo(x(from[0]), y(from[1]));
        pen.lineTo(x(to[0]), y(to[1]));
        pen.stroke();
      }
    }
    pen.strokeStyle = RIM;
    dot(paper, ...to, 2.2 * thick, MOVED, 0.5 * thick);
  }
}

/** Points of the chosen groups with where they came from. */
function pointsOf(one) {
  const inGroup = one.points.length / 2 / one.groups;
  const found = [];
  for (let at = 0; at < one.points.length / 2; at++) {
    const group = Math.floor(at / inGroup);
    if (view.group !== "all" && Number(view.group) !== group) continue;
    const start = one.reference && (at % inGroup) % (one.reference.length / 2);
    const from = one.reference && [one.reference[2 * start], one.reference[2 * start + 1]];
    found.push({ from, to: [one.points[2 * at], one.points[2 * at + 1]] });
  }
  return found;
}

function heat({ pen, scale, x, y }, one) {
  const { map: [rows, columns], shares } = one.trace;
  const mine = shares.subarray(view.query * rows * columns, (view.query + 1) * rows * columns);
  const sorted = Uint8Array.from(mine).sort();
  const [low, high] = [sorted[0], sorted[Math.floor(0.99 * (sorted.length - 1))]];
  const [left, top, width, height] = doc.frame;
  const edge = (at, count, from, size) => Math.round(from + (at * size) / count);
  for (let row = 0; row < rows; row++)
    for (let column = 0; column < columns; column++) {
      const [x0, x1] = [column, column + 1].map((at) => edge(at, columns, x(left), width * scale));
      const [y0, y1] = [row, row + 1].map((at) => edge(at, rows, y(top), height * scale));
      pen.fillStyle = colour((mine[row * columns + column] - low) / (high - low || 1), 0.62);
      pen.fillRect(x0, y0, x1 - x0, y1 - y0);
    }
}

function cross({ pen, x, y, dots }, [px, py]) {
  for (const [style, width] of [["#ffffff", 5], [RIM, 2.2]]) {
    pen.strokeStyle = style;
    pen.lineWidth = width * dots;
    pen.beginPath();
    for (const [sx, sy] of [[-1, -1], [-1, 1]]) {
      pen.moveTo(x(px) + 7 * sx * dots, y(py) + 7 * sy * dots);
      pen.lineTo(x(px) - 7 * sx * dots, y(py) - 7 * sy * dots);
    }
    pen.stroke();
  }
}

// ------------------------------------------------------------------------------------------- showing

const LEGENDS = {
  query: `Circles: the keys of the query, the cross; area and colour by attention.`,
  made: "From dark, where least comes from, to light: what the query is made of, traced back to the first map.",
  keys: `Circles: keys by the attention of all queries; area and colour by attention.`,
  points: "Blue: reference points. Orange: where keys are read.",
};

function show() {
  const one = block(view.block);
  const paper = begin();
  const at = place(one, view.query);
  let keys = [];
  if (view.mode === "points") moves(paper, one);
  if (view.mode === "keys") {
    const { count, places, mass } = one.received;
    for (let key = 0; key < count * one.groups; key++)
      if (view.group === "all" || Number(view.group) === Math.floor(key / count))
        keys.push({ x: places[2 * key], y: places[2 * key + 1], group: Math.floor(key / count), relative: mass[key] });
    keys.sort((a, b) => b.relative - a.relative);
    circles(paper, keys, one.received.of * (view.group === "all" ? one.groups : 1));
  }
  if (view.mode === "query" || view.mode === "made") {
    keys = keysOf(one, view.query);
    for (const key of keys) key.relative = key.share * keys.length;
    if (view.mode === "made") heat(paper, one);
    else circles(paper, keys, one.shared ? keys.length : Math.max(keys.length, one.map[0] * one.map[1]));
    cross(paper, at);
  }
  fill(one);
  say(one, at, keys);
}

/** The choices that make sense, with what is chosen. */
function fill(one) {
  setOptions(find("block"), doc.blocks.map(({ name, kind }) => [name, `${name} (${kind.replaceAll("_", " ")})`]), view.block);
  find("mode").value = view.mode;
  const groups = Array.from({ length: one.groups }, (_, group) => [String(group), String(group)]);
  setOptions(find("group"), [["all", "all"], ...groups], view.group);
  const heads = Array.from({ length: one.heads }, (_, head) => head).filter((head) => view.group === "all" || groupOf(one, head) === Number(view.group));
  setOptions(find("head"), [["mean", "mean of all"], ...heads.map((head) => [String(head), String(head)])], view.head);
  find("group-choice").hidden = one.groups === 1 || view.mode === "made";
  find("head-choice").hidden = one.heads === 1 || view.mode !== "query";
}

function say(one, [x, y], keys) {
  const where = `Query at x ${number(x, 0)}, y ${number(y, 0)}, one of ${one.rows * one.columns}.`;
  let needed = 0;
  for (let sum = 0; needed < keys.length && sum < 0.5; needed++) sum += keys[needed].share ?? 1;
  const left = one.step > 1 ? ` One query in ${one.step} rows and columns is kept in this page.` : "";
  const far = one.moved.map((distance) => number(distance, 1)).join(", ");
  const off = Math.max(...one.outside) > 0 ? ` Off the map, where zeros are read: ${one.outside.map((share) => `${number(100 * share, 0)} %`).join(", ")}.` : "";
  const moved = one.reference ? `Points have moved by ${far} pixels on average, by group.${off}` : "Its keys can't move.";
  const texts = {
    query: `${where} Half of its attention is on ${counted(needed, "key")} of ${keys.length}.${left}`,
    made: `${where}${left}`,
    keys: keys.length ? `The strongest key gets ${number(keys[0].relative, 1)} times an even share.` : "",
    points: moved,
  };
  find("status").textContent = texts[view.mode];
  find("legend").textContent = LEGENDS[view.mode];
  const listed = view.mode === "query" || view.mode === "keys" ? keys.slice(0, LISTED) : [];
  find("strongest").hidden = !listed.length;
  const heads = ["x", "y", ...(one.groups > 1 ? ["Group"] : []), view.mode === "query" ? "Share, %" : "Even shares"];
  find("strongest").replaceChildren(make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((text) => make("th", { scope: "col", class: "number" }, text)))),
    make("tbody", {}, ...listed.map((key) => make("tr", {},
      ...[number(key.x, 0), number(key.y, 0), ...(one.groups > 1 ? [String(key.group)] : []),
        view.mode === "query" ? number(100 * key.share, 1) : number(key.relative, 1)].map((text) => make("td", { class: "number" }, text)))))));
  find("canvas").setAttribute("aria-label", `${doc.name}, block ${one.name}: ${texts[view.mode]}`);
}

// ------------------------------------------------------------------------------------------ choosing

function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  const names = doc.blocks.map((one) => one.name);
  const name = names.includes(said.get("block")) ? said.get("block") : names[0];
  const one = block(name);
  const query = Number(said.get("query") ?? -1);
  view = { block: name, mode: MODES.includes(said.get("mode")) ? said.get("mode") : "query", group: "all", head: "mean" };
  view.query = Number.isInteger(query) && query >= 0 && query < one.rows * one.columns ? query : nearest(one, ...doc.first);
  const group = Number(said.get("group") ?? -1);
  if (Number.isInteger(group) && group >= 0 && group < one.groups) view.group = String(group);
  const head = Number(said.get("head") ?? -1);
  if (Number.isInteger(head) && head >= 0 && head < one.heads) view.head = String(head);
  agree(one);
}

/** A head that isn't of the chosen group gives way. */
function agree(one) {
  if (view.group !== "all" && Number(view.group) >= one.groups) view.group = "all";
  if (view.head !== "mean" && (Number(view.head) >= one.heads || (view.group !== "all" && groupOf(one, Number(view.head)) !== Number(view.group))))
    view.head = "mean";
}

function choose(change) {
  const before = place(block(view.block), view.query);
  Object.assign(view, change);
  const one = block(view.block);
  if (change.block) view.query = nearest(one, ...before); // another map
  agree(one);
  history.replaceState(null, "", `#${new URLSearchParams(view)}`);
  show();
}

function pick(event) {
  const at = find("canvas").getBoundingClientRect();
  const x = LEFT + ((event.clientX - at.left) / at.width) * (RIGHT - LEFT);
  const y = TOP + ((event.clientY - at.top) / at.height) * (BOTTOM - TOP);
  choose({ query: nearest(block(view.block), x, y), mode: view.mode === "made" ? "made" : "query" });
}

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

function step(event) {
  const one = block(view.block);
  const mode = view.mode === "made" ? "made" : "query";
  if (event.key === "Home") choose({ query: nearest(one, ...doc.first), mode });
  else if (STEPS[event.key] && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const [down, right] = STEPS[event.key];
    const row = Math.min(Math.max(Math.floor(view.query / one.columns) + down, 0), one.rows - 1);
    const column = Math.min(Math.max((view.query % one.columns) + right, 0), one.columns - 1);
    choose({ query: row * one.columns + column, mode });
  } else return;
  event.preventDefault();
}

function listenToTheme() {
  const root = document.documentElement;
  const dark = () => root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const name = () => { find("theme").textContent = dark() ? "Light" : "Dark"; };
  find("theme").addEventListener("click", () => { root.dataset.theme = dark() ? "light" : "dark"; name(); });
  name();
}

find("block").addEventListener("change", (event) => choose({ block: event.target.value }));
find("mode").addEventListener("change", (event) => choose({ mode: event.target.value }));
find("group").addEventListener("change", (event) => choose({ group: event.target.value }));
find("head").addEventListener("change", (event) => choose({ head: event.target.value }));
find("canvas").addEventListener("click", pick);
find("canvas").addEventListener("keydown", step);
window.addEventListener("hashchange", () => { readAddress(); show(); });
listenToTheme();
readAddress();
picture.onload = () => { show(); new ResizeObserver(() => show()).observe(find("canvas").parentElement); };
picture.src = doc.picture;
