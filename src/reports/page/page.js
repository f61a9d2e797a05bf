// The page: what is chosen (`view`, kept in the address), what is shown (`show`), and news from a server.

let doc = JSON.parse(find("data").textContent);
let byName; // variants
let byId; // runs
let version = 0; // of the study: counts its news
let view;
let moveMark = () => {};
let cursor = null; // the step at which curves are read; null for the last one

const LISTS = ["drawn", "ticked"];
const FIRST = 6; // variants whose curves are drawn unless others are chosen
const MOST = 150; // lines in a chart
const ROWS = 200; // of runs, until all are asked for: a thousand take a moment at every click
const BAD = ["failed", "diverged", "damaged", "lost"];
const VERDICTS = {
  better: () => "better",
  worse: () => "worse",
  no_difference: ({ within }) => `no difference > ${number(within, 1)}`,
  cannot_tell: () => "cannot tell",
};

// ------------------------------------------------------------------------------------------ what is chosen

function defaults() {
  const names = doc.variants.map((variant) => variant.name);
  return {
    baseline: doc.baseline,
    metric: doc.curves.columns.includes("val/acc1") ? "val/acc1" : doc.curves.columns[0] ?? "",
    mode: "mean",
    drawn: [...new Set([doc.baseline, ...names])].slice(0, FIRST),
    ticked: [],
    variant: "",
    status: "",
    seed: "",
    search: "",
    variantsBy: "",
    runsBy: "",
    all: "",
    open: "",
  };
}

/** What the address says; what it doesn't say, or what no longer is, is as at first. */
function readAddress() {
  const said = new URLSearchParams(location.hash.slice(1));
  view = { ...defaults(), picture: view?.picture ?? {} };
  for (const key of Object.keys(defaults()))
    if (said.has(key)) view[key] = LISTS.includes(key) ? said.getAll(key).filter(Boolean) : said.get(key);
  if (!doc.comparisons[view.baseline]) view.baseline = doc.baseline;
  if (!doc.curves.columns.includes(view.metric)) view.metric = defaults().metric;
  if (view.mode !== "runs") view.mode = "mean";
  view.drawn = view.drawn.filter((name) => byName.has(name));
  view.ticked = view.ticked.filter((id) => byId.has(id));
}

function writeAddress() {
  const said = new URLSearchParams();
  for (const [key, usual] of Object.entries(defaults())) {
    if (String(view[key]) === String(usual)) continue;
    if (LISTS.includes(key)) (view[key].length ? view[key] : [""]).forEach((value) => said.append(key, value));
    else said.set(key, view[key]);
  }
  history.replaceState(null, "", `#${said}`);
}

function choose(change) {
  Object.assign(view, change);
  writeAddress();
  show();
}

// ------------------------------------------------------------------------------------------- what is shown

function take(fresh) {
  doc = fresh;
  version += 1;
  byName = new Map(doc.variants.map((variant) => [variant.name, variant]));
  byId = new Map(doc.runs.map((run) => [run.id, run]));
}

/** Shows what has changed: each part anew only if the study has, or what it depends on. */
function show() {
  const { baseline, metric, mode, drawn, ticked, variant, status, seed, search, variantsBy, runsBy, all } = view;
  keepingFocus(() => {
    part(showHead);
    part(showRunning);
    part(showVariants, baseline, variantsBy);
    part(showForest, baseline, document.body.clientWidth);
    part(showPicker, metric, mode, drawn);
    part(showCurves, metric, mode, drawn, ticked, document.body.clientWidth);
    part(showRuns, ticked, variant, status, seed, search, runsBy, all);
  });
  showDialog();
}

const partsShown = new Map();

function part(showPart, ...needs) {
  const key = JSON.stringify([version, ...needs]);
  if (partsShown.get(showPart) === key) return;
  partsShown.set(showPart, key);
  showPart();
}

function showHead() {
  find("answer").textContent = doc.texts.answer ?? "";
  find("answer").hidden = !doc.texts.answer;
  const { counts, seconds_left } = doc.progress;
  const others = Object.entries(counts).filter(([status]) => status !== "finished");
  find("count").textContent = [
    `${counts.finished ?? 0} of ${counted(doc.runs.length, "run")} finished`,
    ...others.map(([status, n]) => `${n} ${status}`),
    counted(doc.variants.length, "variant"),
    counted(doc.seeds.length, "seed"),
    seconds_left ? `about ${duration(seconds_left)} left` : null,
  ].filter(Boolean).join(" · ");
}

function howFar({ progress }) {
  if (!progress) return "has just begun";
  const accuracy = progress.metrics?.["val/acc1"];
  return [
    progress.phase === "test" ? "testing" : `epoch ${progress.epoch} of ${progress.epochs}, step ${progress.step} of ${progress.steps}`,
    accuracy == null ? null : `validation ${number(100 * accuracy, 1)} %`,
    progress.seconds_left == null ? null : `about ${duration(progress.seconds_left)} left`,
  ].filter(Boolean).join(", ");
}

function showRunning() {
  const running = doc.runs.filter((run) => run.status === "running");
  find("running").hidden = !running.length;
  find("jobs").replaceChildren(...running.map((run) =>
    make("li", {}, make("span", {}, openRun(run, "job")),
      make("progress", { max: run.progress?.steps || 1, value: run.progress?.step ?? 0, "aria-label": `${run.id}: ${howFar(run)}` }),
      make("span", { class: "quiet" }, howFar(run)))));
}

function openRun(run, where) {
  return make("button", { type: "button", class: "open", click: () => choose({ open: `run ${run.id}` }), "data-key": `${where}-${run.id}` }, run.id);
}

function meanAndSpread({ mean, sd }) {
  return mean == null ? "" : `${number(mean, 2)}${sd == null ? "" : ` ± ${number(sd, 2)}`}`;
}

function comparisons() {
  return new Map((doc.comparisons[view.baseline] ?? []).map((one) => [one.variant, one]));
}

const published = (name) => byName.get(name)?.published?.top1;

function publishedDifference(name) {
  const [own, other] = [published(name), published(view.baseline)];
  return own == null || other == null || name === view.baseline ? null : own - other;
}

function variantColumns(found) {
  const paired = (variant) => found.get(variant.name)?.paired;
  const word = (variant) => found.get(variant.name)?.word;
  const decided = (variant) => (["better", "worse"].includes(word(variant)) ? word(variant) : null);
  return [
    { name: "variant", label: "Variant", head: true, value: (v) => v.name,
      cell: (v) => make("button", { type: "button", class: "open", click: () => choose({ open: `variant ${v.name}` }), "data-key": `variant-${v.name}` }, v.name) },
    { name: "seeds", label: "Seeds", number: true, value: (v) => v.finished, cell: (v) => (v.finished === v.jobs ? `${v.finished}` : `${v.finished} of ${v.jobs}`) },
    { name: "score", label: "Test\ntop-1, %", title: "mean ± standard deviation over seeds", number: true, value: (v) => v.mean, cell: meanAndSpread },
    { name: "difference", label: "Difference", title: "to the baseline, percentage points, over common seeds", number: true, look: decided,
      value: (v) => paired(v)?.mean, cell: (v) => (v.name === view.baseline ? "baseline" : signed(paired(v)?.mean, 2)) },
    { name: "interval", label: "95 %\ninterval", title: "Student's t, points", number: true, value: (v) => paired(v)?.t?.[0], cell: (v) => interval(paired(v)?.t, 2) },
    { name: "p", label: "p", title: "sign flips, after Holm", number: true, value: (v) => found.get(v.name)?.p_holm, cell: (v) => probability(found.get(v.name)?.p_holm) },
    { name: "verdict", label: "Verdict", value: word, look: decided, cell: (v) => make("span", { title: found.get(v.name)?.text }, VERDICTS[word(v)]?.(found.get(v.name)) ?? "") },
    { name: "published", label: "Published,\ntop-1, %", number: true, title: "test top-1 and its difference, in another protocol", value: (v) => published(v.name),
      cell: (v) => (published(v.name) == null ? "" : `${number(published(v.name), 1)}${publishedDifference(v.name) == null ? "" : ` (${signed(publishedDifference(v.name), 1)})`}`) },
    { name: "params", label: "Parameters", number: true, value: (v) => v.params, cell: (v) => withPrefix(v.params) },
    { name: "macs", label: "MACs", title: "multiply-accumulates of one image", number: true, value: (v) => v.macs, cell: (v) => withPrefix(v.macs) },
    { name: "time", label: "Time", title: "of a run, mean", number: true, value: (v) => v.seconds, cell: (v) => duration(v.seconds) },
  ];
}

function showVariants() {
  setOptions(find("baseline"), doc.variants.map(({ name }) => [name, name]), view.baseline);
  const waiting = doc.variants.every((variant) => variant.mean == null);
  table(find("variants"), {
    id: "variants",
    caption: waiting ? "No run has finished yet" : `${counted(doc.variants.length, "variant")}, compared with ${view.baseline}`,
    columns: variantColumns(comparisons()),
    rows: doc.variants,
    order: view.variantsBy,
    reorder: (name) => choose({ variantsBy: nextOrder(view.variantsBy, name) }),
    rowClass: (variant) => (variant.name === view.baseline ? "of-baseline" : null),
  });
}

function showForest() {
  const rows = [...comparisons().values()].map((one) => ({
    name: one.variant,
    mean: one.paired?.mean ?? null,
    interval: one.paired?.t ?? null,
    differences: one.differences,
    published: publishedDifference(one.variant),
    mark: ["better", "worse"].includes(one.word) ? `mark-${one.word}` : "undecided",
    sentence: `${one.variant}: ${one.text}`,
  }));
  const any = rows.some((row) => row.mean != null);
  if (any) forest(find("forest"), rows, find("forest").clientWidth);
  else find("forest").replaceChildren();
  find("forest-caption").textContent = any
    ? `Difference to ${view.baseline}: mean (square) with its 95 % t interval, single seeds (dots)` +
      `${rows.some((row) => row.published != null) ? ", the published difference (diamond)" : ""}. Colour only where the verdict is better or worse.`
    : doc.variants.length < 2 ? "The study has one variant: there is nothing to compare it with." : "No difference can be drawn yet: no seed is finished in two variants.";
}

// -------------------------------------------------------------------------------------------------- curves

function showPicker() {
  setOptions(find("metric"), doc.curves.columns.map((name) => [name, name]), view.metric);
  find("mode").value = view.mode;
  const toggle = (name) => choose({ drawn: view.drawn.includes(name) ? view.drawn.filter((one) => one !== name) : [...view.drawn, name] });
  find("picker").replaceChildren(...doc.variants.map(({ name }, place) =>
    make("label", {}, make("input", { type: "checkbox", checked: view.drawn.includes(name), change: () => toggle(name), "data-key": `draw-${name}` }),
      swatch(trace(place)), name)));
}

/** The curve of the chosen column of a run, or null. */
function curveOf(run) {
  const found = run.curves[doc.curves.columns.indexOf(view.metric)];
  return found && { steps: doc.curves.steps[found[0]], values: found[1].map((value) => value * unitOf(view.metric)[0]) };
}

/** By what a column is multiplied to be shown, and its unit. */
function unitOf(column) {
  if (/acc\d|outside/.test(column)) return [100, "%"];
  return [1, column.endsWith("_px") ? "pixels" : ""];
}

/** Mean and standard deviation at the steps that all of the runs have. */
function meanCurve(curves) {
  const at = curves.map(({ steps, values }) => new Map(steps.map((step, place) => [step, values[place]])));
  const steps = curves[0].steps.filter((step) => at.every((one) => one.has(step)));
  const columns = steps.map((step) => at.map((one) => one.get(step)));
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  const values = columns.map(mean);
  const band = columns.map((each, place) => Math.sqrt(each.reduce((sum, value) => sum + (value - values[place]) ** 2, 0) / (each.length - 1)));
  return { steps, values, band: curves.length > 1 ? band : null };
}

function chosenSeries() {
  const found = [];
  const single = (run) => {
    const curve = curveOf(run);
    const place = doc.variants.findIndex((variant) => variant.name === run.variant);
    if (curve) found.push({ name: run.id, look: trace(place, doc.seeds.indexOf(run.seed)), thin: true, ...curve });
  };
  doc.variants.forEach(({ name }, place) => {
    if (!view.drawn.includes(name)) return;
    const runs = doc.runs.filter((run) => run.variant === name && curveOf(run));
    if (view.mode === "runs") return runs.filter((run) => !view.ticked.includes(run.id)).forEach(single);
    const finished = runs.filter((run) => run.status === "finished");
    const curves = (finished.length ? finished : runs).map(curveOf);
    const mean = curves.length ? meanCurve(curves) : null;
    if (mean?.steps.length)
      found.push({ name: finished.length ? name : `${name} (unfinished)`, runs: curves.length, look: trace(place), ...mean });
  });
  view.ticked.forEach((id) => single(byId.get(id)));
  return found;
}

function showCurves() {
  find("curves-body").hidden = !doc.curves.columns.length;
  find("no-curves").hidden = !!doc.curves.columns.length;
  if (!doc.curves.columns.length) return;
  const all = chosenSeries();
  const series = all.slice(0, MOST);
  const steps = [...new Set(series.flatMap((one) => one.steps))].sort((a, b) => a - b);
  const slider = find("cursor");
  slider.disabled = !steps.length;
  slider.max = Math.max(0, steps.length - 1);
  const read = (step, byUser = true) => {
    if (!steps.length) return;
    const place = steps.reduce((best, one, at) => (Math.abs(one - step) < Math.abs(steps[best] - step) ? at : best), 0);
    if (byUser) cursor = steps[place];
    slider.value = place;
    slider.setAttribute("aria-valuetext", `step ${steps[place]}`);
    showReadout(series, steps[place]);
    moveMark(steps[place]);
  };
  slider.oninput = () => read(steps[slider.value]);
  if (series.length) {
    moveMark = lines(find("lines"), series, { width: find("lines").clientWidth, unit: unitOf(view.metric)[1], name: view.metric, choose: read });
    read(cursor ?? steps.at(-1), false);
  } else {
    find("lines").replaceChildren(make("p", { class: "note" }, "Nothing to draw: tick a variant above, or runs in the table below."));
    find("readout").replaceChildren();
  }
  find("curves-note").textContent = [
    all.length > MOST ? `${MOST} of ${all.length} lines are drawn.` : "",
    "Runs that are ticked in the table below are drawn too.",
    doc.curves.limit < 200 ? `At most ${doc.curves.limit} points of each curve are in this page.` : "",
  ].filter(Boolean).join(" ");
}

function showReadout(series, step) {
  const unit = unitOf(view.metric)[1];
  const rows = series.map((one) => {
    const place = one.steps.findLastIndex((each) => each <= step);
    const value = place < 0 || (one.steps.at(-1) < step && one.steps.length > 1) ? null : one.values[place];
    return { ...one, value, spread: one.band?.[place] };
  });
  const text = ({ value, spread }) => (value == null ? "" : `${Number(value.toPrecision(4))}${spread == null ? "" : ` ± ${Number(spread.toPrecision(2))}`}`);
  find("readout").replaceChildren(make("table", {},
    make("caption", {}, `At step ${step.toLocaleString("en")}`),
    make("thead", {}, make("tr", {}, ...["Line", "Runs", `${view.metric}${unit ? `, ${unit}` : ""}`].map((head, at) =>
      make("th", { scope: "col", colspan: at ? 1 : 2 }, head)))),
    make("tbody", {}, ...rows.map((row) => make("tr", {}, make("td", {}, swatch(row.look)), make("th", { scope: "row" }, ...breakable(row.name)),
      make("td", {}, String(row.runs ?? 1)), make("td", {}, text(row)))))));
}

// ---------------------------------------------------------------------------------------------------- runs

function matches(run) {
  if (view.variant && run.variant !== view.variant) return false;
  if (view.status && run.status !== view.status) return false;
  if (view.seed && String(run.seed) !== view.seed) return false;
  const text = [run.id, `seed ${run.seed}`, run.status, run.identity, run.folder, run.error?.type, run.error?.message].join(" ").toLowerCase();
  return view.search.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

const percent = (name) => (run) => (run.metrics?.[name] == null ? null : 100 * run.metrics[name]);

function runColumns() {
  const tick = (run) => choose({ ticked: view.ticked.includes(run.id) ? view.ticked.filter((id) => id !== run.id) : [...view.ticked, run.id] });
  const measured = (name, label, value, digits, title) => ({ name, label, title, value, number: true, cell: (run) => number(value(run), digits) });
  return [
    { name: "ticked", title: "Tick to draw its curve, or to compare configs", value: (run) => view.ticked.includes(run.id),
      cell: (run) => make("input", { type: "checkbox", checked: view.ticked.includes(run.id), change: () => tick(run), "aria-label": `Tick ${run.id}`, "data-key": `tick-${run.id}` }) },
    { name: "run", label: "Run", head: true, value: (run) => run.id, cell: (run) => openRun(run, "run") },
    { name: "seed", label: "Seed", number: true, value: (run) => run.seed, cell: (run) => `${run.seed}` },
    { name: "status", label: "Status", value: (run) => run.status, look: (run) => (BAD.includes(run.status) ? "bad" : null) },
    measured("test", "Test\ntop-1, %", percent("test/acc1"), 2),
    measured("validation", "Validation\ntop-1, %", percent("val/acc1"), 2, "top-1 of the chosen epoch"),
    measured("epoch", "Epoch", (run) => (run.metrics?.best_epoch == null ? null : run.metrics.best_epoch + 1), 0, "the one that validation chose"),
    { name: "time", label: "Time", number: true, value: (run) => run.seconds, cell: (run) => duration(run.seconds) },
    measured("pace", "Images/s", (run) => run.metrics?.images_per_second, 0),
    measured("memory", "Memory,\nMB", (run) => run.metrics?.peak_memory_mb, 0, "peak"),
    measured("attempts", "Attempts", (run) => run.attempts?.length, 0),
    { name: "identity", label: "Identity", value: (run) => run.identity },
  ];
}

function showRuns() {
  const any = (label, values) => [["", label], ...values.map((value) => [String(value), String(value)])];
  setOptions(find("filter-variant"), any("all", doc.variants.map(({ name }) => name)), view.variant);
  setOptions(find("filter-status"), any("all", [...new Set([...Object.keys(doc.progress.counts), view.status])].filter(Boolean)), view.status);
  setOptions(find("filter-seed"), any("all", doc.seeds), view.seed);
  if (document.activeElement !== find("search")) find("search").value = view.search;
  const rows = doc.runs.filter(matches);
  const cut = rows.length > ROWS && !view.all;
  find("shown").textContent = `${rows.length} of ${doc.runs.length} chosen${cut ? `, ${ROWS} of them shown` : ""}, ${view.ticked.length} ticked`;
  find("all").hidden = !cut;
  find("untick").disabled = !view.ticked.length;
  find("compare").disabled = doc.runs.length < 2;
  table(find("runs-table"), {
    id: "runs",
    caption: "Runs, a row each",
    columns: runColumns(),
    rows,
    most: cut ? ROWS : Infinity,
    order: view.runsBy,
    reorder: (name) => choose({ runsBy: nextOrder(view.runsBy, name) }),
  });
}

// -------------------------------------------------------------------------------------------------- dialog

let opened = ""; // what the dialog shows, to the last value: it is made anew only if that changes

function showDialog() {
  const dialog = find("dialog");
  const [kind, ...rest] = view.open.split(" ");
  const name = rest.join(" ");
  const [one, other] = kind === "diff" ? name.split(" | ").map((id) => byId.get(id)) : [];
  const [title, of] = kind === "run" ? [`Run ${name}`, byId.get(name)]
    : kind === "variant" ? [`Variant ${name}`, byName.get(name) && [byName.get(name), comparisons().get(name)]]
    : ["Two configs", one && other && [one, other]];
  if (!of) {
    opened = "";
    if (dialog.open) dialog.close();
    return;
  }
  const now = view.open + JSON.stringify(of);
  if (now === opened) return;
  const unfolded = opened.startsWith(view.open) ? [...dialog.querySelectorAll("details[open]")].map((each) => each.dataset.title) : [];
  opened = now;
  keepingFocus(() => {
    find("dialog-title").textContent = title;
    find("dialog-body").replaceChildren(...(kind === "run" ? runDetails(of) : kind === "variant" ? variantDetails(...of)
      : configDifferences(...of, (a, b) => choose({ open: `diff ${a} | ${b}` }))));
    for (const each of dialog.querySelectorAll("details")) each.open = unfolded.includes(each.dataset.title);
  });
  if (!dialog.open) dialog.showModal();
}

// -------------------------------------------------------------------------------------------- what is done

function rowsOf(columns, rows) {
  const told = columns.filter((column) => column.label);
  return [told.map((column) => column.label.replace("\n", " ")), ...rows.map((row) => told.map((column) => column.value(row)))];
}

function listen() {
  const chooses = { baseline: "baseline", metric: "metric", mode: "mode", "filter-variant": "variant", "filter-status": "status", "filter-seed": "seed" };
  for (const [id, key] of Object.entries(chooses)) find(id).addEventListener("change", () => choose({ [key]: find(id).value }));
  find("search").addEventListener("input", () => choose({ search: find("search").value }));
  find("all").addEventListener("click", () => choose({ all: "yes" }));
  find("untick").addEventListener("click", () => choose({ ticked: [] }));
  find("compare").addEventListener("click", () => {
    const [one, other] = [...view.ticked, ...doc.runs.map((run) => run.id).filter((id) => !view.ticked.includes(id))];
    choose({ open: `diff ${one} | ${other}` });
  });
  find("save-variants").addEventListener("click", () => saveCsv(`${doc.study}-variants.csv`, rowsOf(variantColumns(comparisons()), doc.variants)));
  find("save-runs").addEventListener("click", () => saveCsv(`${doc.study}-runs.csv`, rowsOf(runColumns(), doc.runs.filter(matches))));
  find("close").addEventListener("click", () => choose({ open: "" }));
  let opener = null; // what had the focus, by its key: tables may be made anew while the dialog is open
  find("dialog").addEventListener("close", () => {
    if (view.open) choose({ open: "" });
    if (opener) document.querySelector(`[data-key="${CSS.escape(opener)}"]`)?.focus({ preventScroll: true });
  });
  document.addEventListener("focusout", (event) => {
    if (!find("dialog").contains(event.target)) opener = event.target.dataset?.key ?? null;
  });
  // The address after # holds what is chosen, so links within the page only scroll.
  for (const link of document.querySelectorAll('a[href^="#"]'))
    link.addEventListener("click", (event) => {
      const target = find(link.getAttribute("href").slice(1));
      if (!target) return;
      event.preventDefault();
      target.scrollIntoView();
      target.tabIndex = -1;
      target.focus({ preventScroll: true });
    });
  window.addEventListener("hashchange", () => { readAddress(); show(); });
  let width = document.body.clientWidth;
  new ResizeObserver(() => {
    if (width === document.body.clientWidth) return;
    width = document.body.clientWidth;
    show();
  }).observe(document.body);
}

function listenToTheme() {
  const root = document.documentElement;
  const dark = () => (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const name = () => { find("theme").textContent = dark() ? "Light" : "Dark"; };
  try {
    const kept = localStorage.getItem("theme");
    if (kept) root.dataset.theme = kept;
  } catch { /* a browser that keeps nothing for files: the system's colours */ }
  find("theme").addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* as above */ }
    name();
  });
  name();
}

// ------------------------------------------------------------------------------------- news from a server

async function follow(seconds) {
  let tag = "";
  let heard = null;
  const say = (text, gone) => {
    find("heard").textContent = text;
    find("heard").classList.toggle("gone", gone);
  };
  for (;;) {
    const time = new Date().toLocaleTimeString("en-GB");
    try {
      const answer = await fetch("data.json", { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
      if (answer.status === 200) {
        take(await answer.json());
        tag = answer.headers.get("ETag");
        show();
      }
      const fine = answer.status === 200 || answer.status === 304;
      if (fine) heard = time;
      say(fine ? `Follows the study. Last heard from its server at ${heard}.` : `The server can't read the study: ${await answer.text()}`, !fine);
    } catch {
      say(`The server is gone${heard ? `; last heard from it at ${heard}` : ""}. This page shows what it knew, and goes on asking.`, true);
    }
    await new Promise((done) => setTimeout(done, 1000 * seconds));
  }
}

take(doc);
readAddress();
listen();
listenToTheme();
show();
if (document.body.dataset.poll) follow(Number(document.body.dataset.poll));
