// What the dialog shows: a run, a variant against the baseline, two configs side by side.

function facts(pairs) {
  const told = pairs.filter(([, value]) => value != null && value !== "");
  return make("dl", {}, ...told.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}

function folded(title, ...content) {
  return make("details", { "data-title": title }, make("summary", {}, title), ...content);
}

function plainTable(caption, heads, rows, look) {
  return make("div", { class: "box", role: "region", "aria-label": caption, tabindex: 0 },
    make("table", { class: look }, make("caption", {}, caption),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows.map(([head, ...cells]) =>
        make("tr", {}, make("th", { scope: "row" }, head), ...cells.map((cell) => make("td", {}, cell)))))));
}

/** The whole config of a run, flat: its variant's, with its own deviations. */
function configOf(run) {
  const config = { ...byName.get(run.variant).config, ...run.config };
  for (const key of run.without ?? []) delete config[key];
  return config;
}

function runDetails(run) {
  const environment = doc.environments[run.environment] ?? { versions: {}, hardware: {}, code: {} };
  const code = environment.code.commit && `${environment.code.commit.slice(0, 10)}${environment.code.dirty ? ", with changes" : ""}`;
  const { gpus = [], ...hardware } = environment.hardware;
  const parts = [facts([
    ["Status", run.status],
    ["Progress", run.status === "running" ? howFar(run) : null],
    ["Identity", run.identity],
    ["Folder", run.folder],
    ["Began", moment(run.started)],
    ["Ended", moment(run.ended)],
    ["Took", duration(run.seconds)],
    ["Code", code],
    ["Data", run.data],
    ["Parameters", run.params?.toLocaleString("en")],
    ["Multiply-accumulates", run.macs?.toLocaleString("en")],
  ])];
  if (run.error)
    parts.push(make("h3", {}, "Error"), make("p", { class: "bad" }, `${run.error.type}: ${run.error.message}`),
      ...(run.error.traceback ? [make("pre", { tabindex: 0, "aria-label": "Traceback" }, run.error.traceback)] : []));
  const metrics = Object.entries(run.metrics ?? {});
  if (metrics.length) parts.push(make("h3", {}, "Metrics"), facts(metrics.map(([name, value]) => [name, written(value)])));
  if (run.points) parts.push(make("h3", {}, "Where keys are read"), picture(run.points));
  if (run.log) parts.push(make("h3", {}, "Last lines of the log"), make("pre", { tabindex: 0, "aria-label": "Log" }, run.log));
  if (run.attempts?.length)
    parts.push(folded(`Attempts (${run.attempts.length})`, plainTable("Attempts", ["Began", "Ended", "Status", "Went on from"],
      run.attempts.map((one) => [moment(one.start), moment(one.end), written(one.status ?? ""), written(one.resume_from ?? "the start")]))));
  parts.push(folded("Versions and hardware", facts([
    ...Object.entries(environment.versions).map(([name, version]) => [name, version]),
    ...Object.entries(hardware).map(([name, value]) => [name, written(value)]),
    ["gpus", gpus.map((gpu) => gpu.name ?? written(gpu)).join(", ") || "none"],
  ])));
  parts.push(folded("Config", plainTable("Resolved config", ["Key", "Value"],
    Object.entries(configOf(run)).map(([key, value]) => [key, written(value)]), "keys")));
  return parts;
}

function variantDetails(variant, comparison) {
  const { published } = variant;
  const parts = [facts([
    ["Runs finished", `${variant.finished} of ${variant.jobs}`],
    ["Test top-1", meanAndSpread(variant)],
    ["Published", published.top1 != null && `${number(published.top1, 1)} %${published.source ? `, ${published.source}` : ""}`],
    ["Parameters", variant.params?.toLocaleString("en")],
    ["Multiply-accumulates", variant.macs?.toLocaleString("en")],
    ["Time of a run", duration(variant.seconds)],
    ["Images per second", variant.images_per_second && number(variant.images_per_second, 0)],
    ["Peak memory", variant.peak_memory_mb && `${number(variant.peak_memory_mb, 0)} MB`],
  ])];
  if (!comparison) return parts;
  const { paired, images } = comparison;
  parts.push(make("h3", {}, `Against ${view.baseline}`), make("p", { class: comparison.word }, comparison.text));
  if (paired)
    parts.push(facts([
      ["Difference", `${signed(paired.mean, 2)} points`],
      ["95 % interval, Student's t", interval(paired.t, 2)],
      ["95 % interval, BCa bootstrap", interval(paired.bca, 2)],
      ["Standard deviation of differences", number(paired.sd, 2)],
      ["Effect size (Hedges)", number(paired.effect_size, 2)],
      ["p, sign flips", probability(paired.p)],
      ["p after Holm", probability(comparison.p_holm)],
      ["A t test finds 4 times out of 5", paired.detectable != null && `differences from ${number(paired.detectable, 2)} points, uncorrected`],
      ["Other images, same networks", images && `${interval(images.other_images, 2)}, 95 %`],
      ["Other images and seeds", images?.other_seeds_and_images && `${interval(images.other_seeds_and_images, 2)}, 95 %`],
    ]), make("h3", {}, "Seed by seed"), plainTable("Differences of test top-1, points", ["Seed", "Difference"],
      comparison.seeds.map((seed, at) => [String(seed), signed(comparison.differences[at], 2)])));
  return parts;
}

/** Keys in which two runs' configs differ, side by side; `choose` is called with the two ids. */
function configDifferences(one, other, choose) {
  const options = doc.runs.map((run) => [run.id, run.id]);
  const selects = [one, other].map((run, at) => {
    const select = make("select", { "data-key": `diff-${at}`, change: () => choose(selects[0].value, selects[1].value) });
    setOptions(select, options, run.id);
    return select;
  });
  const [a, b] = [configOf(one), configOf(other)];
  const keys = [...new Set([...Object.keys(a), ...Object.keys(b)])].sort()
    .filter((key) => JSON.stringify(a[key]) !== JSON.stringify(b[key]));
  return [
    make("p", { class: "controls" }, make("label", {}, "First ", selects[0]), make("label", {}, "Second ", selects[1])),
    keys.length
      ? plainTable(`${counted(keys.length, "key")} that ${keys.length === 1 ? "differs" : "differ"}`, ["Key", one.id, other.id],
        keys.map((key) => [key, written(a[key]), written(b[key])]), "keys")
      : make("p", {}, "Both have the same config."),
  ];
}

/** A test image with arrows from reference points to where keys are read. */
function picture(points) {
  const [height, width] = points.size;
  const select = (name, options, chosen) => {
    const made = make("select", { "data-key": `picture-${name}`, change: () => { view.picture[name] = made.value; show(); } });
    setOptions(made, options, options.some(([value]) => value === view.picture[name]) ? view.picture[name] : chosen);
    return made;
  };
  const groups = Math.max(...points.blocks.map((block) => block.points[0].length));
  const block = select("block", points.blocks.map((one, at) => [String(at), one.name]), "0");
  const image = select("image", points.images.map((_, at) => [String(at), String(at + 1)]), "0");
  const group = select("group", [["", "all"], ...Array.from({ length: groups }, (_, at) => [String(at), String(at + 1)])], "");
  const place = make("div");
  function show() {
    const chosen = points.blocks[block.value];
    const shown = chosen.points[image.value].map((xy, at) => [at, xy]).filter(([at]) => !group.value || Number(group.value) === at);
    const from = doc.grids[chosen.grid];
    const size = Math.max(width, height);
    const centre = (tenths) => tenths / 10 + 0.5; // 0 is the middle of the first pixel, whose corner is the SVG's
    const parts = [draw("image", { href: doc.images[points.images[image.value]], width, height })];
    for (const [at, xy] of shown) {
      let d = "";
      for (let p = 0; p < xy.length; p += 2)
        d += arrow(centre(from[p]), centre(from[p + 1]), centre(xy[p]), centre(xy[p + 1]), 0.014 * size);
      // Light colours with a dark edge stand out from any image.
      parts.push(draw("path", { d, fill: "none", stroke: "#000", opacity: 0.6, "stroke-width": 0.011 * size }));
      parts.push(draw("path", { d, fill: "none", stroke: ["#e69f00", "#56b4e9", "#f0e442", "#cc79a7"][at % 4], "stroke-width": 0.006 * size }));
    }
    for (let p = 0; p < from.length; p += 2)
      parts.push(draw("circle", { cx: centre(from[p]), cy: centre(from[p + 1]), r: 0.005 * size, fill: "#fff", stroke: "#000", "stroke-width": 0.002 * size }));
    const label = `Block ${chosen.name} on test image ${Number(image.value) + 1}: arrows from ${from.length / 2} reference points, ${counted(shown.length, "group")}`;
    place.replaceChildren(draw("svg", { class: "picture", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label }, ...parts));
  }
  show();
  return make("div", {}, make("p", { class: "controls" }, make("label", {}, "Block ", block), make("label", {}, "Image ", image), make("label", {}, "Group ", group)), place);
}

function arrow(x0, y0, x1, y1, head) {
  const [dx, dy] = [x1 - x0, y1 - y0];
  const length = Math.hypot(dx, dy);
  if (length < 0.3 * head) return "";
  const n = (value) => value.toFixed(2);
  const tip = Math.min(head, 0.6 * length) / length;
  const side = (sign) => `${n(x1 - tip * (dx - sign * 0.55 * dy))} ${n(y1 - tip * (dy + sign * 0.55 * dx))}`;
  return `M${n(x0)} ${n(y0)}L${n(x1)} ${n(y1)}M${side(1)}L${n(x1)} ${n(y1)}L${side(-1)}`;
}
