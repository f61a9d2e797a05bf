"use strict";
// Elements and numbers. Whatever comes from a study goes into the page as text, never as markup.

const MINUS = "\u2212";

function find(id) {
  return document.getElementById(id);
}

/** An element: attributes, functions among them as listeners ("click"), then children, elements or texts. */
function make(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function draw(tag, attributes = {}, ...children) {
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
}

function filled(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

/** Puts options into a select, pairs of value and text, unless it has them already. */
function setOptions(select, options, chosen) {
  const key = JSON.stringify(options);
  if (select.dataset.options !== key) {
    select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
    select.dataset.options = key;
  }
  select.value = chosen;
}

/** Changes the page; the focus stays on what has the same data-key, also where it was made anew. */
function keepingFocus(change) {
  const key = document.activeElement?.dataset?.key;
  change();
  if (key && document.activeElement?.dataset?.key !== key)
    document.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus({ preventScroll: true });
}

function number(value, digits) {
  return value == null ? "" : value.toFixed(digits).replace("-", MINUS);
}

function signed(value, digits) {
  if (value == null) return "";
  const text = number(value, digits);
  return Number(value.toFixed(digits)) > 0 ? `+${text}` : text.replace(new RegExp(`^${MINUS}(?=[0.]*$)`), "");
}

function interval(ends, digits) {
  return ends ? `${signed(ends[0], digits)} to ${signed(ends[1], digits)}` : "";
}

function probability(value) {
  if (value == null) return "";
  return value < 0.001 ? "< 0.001" : value.toFixed(3);
}

function withPrefix(value) {
  if (value == null) return "";
  const [divisor, prefix] = value >= 1e9 ? [1e9, "G"] : value >= 1e6 ? [1e6, "M"] : value >= 1e3 ? [1e3, "k"] : [1, ""];
  return `${(value / divisor).toPrecision(3)} ${prefix}`.trim();
}

function duration(seconds) {
  if (seconds == null) return "";
  const minutes = Math.floor(Math.round(seconds) / 60);
  const two = (n) => String(n).padStart(2, "0");
  if (minutes >= 1440) return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
  if (minutes >= 60) return `${Math.floor(minutes / 60)} h ${two(minutes % 60)} min`;
  return minutes ? `${minutes} min ${two(Math.round(seconds) % 60)} s` : `${Math.round(seconds)} s`;
}

function moment(iso) {
  return iso ? `${iso.slice(0, 10)} ${iso.slice(11, 19)} UTC` : "";
}

/** A value of a config or record, as it stands there. */
function written(value) {
  if (value === undefined) return "not there";
  return typeof value === "string" ? value : JSON.stringify(value);
}

/** A name that may be broken after underscores. */
function breakable(name) {
  return name.split(/(?<=_)/).flatMap((part, at) => (at ? [make("wbr"), part] : [part]));
}

function counted(n, thing) {
  return `${n} ${thing}${n === 1 ? "" : "s"}`;
}

/** Saves rows as a file of comma-separated values. */
function saveCsv(name, rows) {
  // A spreadsheet would compute what begins with one of these.
  const safe = (text) => (/^[=+@\t\r-]/.test(text) && isNaN(Number(text)) ? `'${text}` : text);
  const cell = (value) => `"${safe(String(value ?? "")).replaceAll('"', '""')}"`;
  const text = rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
  const href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  make("a", { href, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(href), 1000);
}
