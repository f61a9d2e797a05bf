// Tables whose columns sort by a click or a key.

/**
 * Fills a place with a table, or the table that is there with other rows.
 * Columns: name, label, value of a row (to sort by), cell of a row (text or element; else the value), number, title.
 * The first column heads its row. `order` is "name" or "-name", empty for the order in which the rows come; `most` rows are shown.
 */
function table(place, { id, caption, columns, rows, most = Infinity, order, reorder, rowClass }) {
  const [name, down] = [order.replace(/^-/, ""), order.startsWith("-")];
  if (!place.firstChild) {
    const head = columns.map((column) => {
      const next = () => reorder(column.name);
      const label = column.label && make("button", { type: "button", class: "sort", click: next, "data-key": `${id}-by-${column.name}` }, column.label);
      return make("th", { scope: "col", class: column.number && "number", title: column.title, "data-column": column.name },
        label || make("span", { "aria-label": column.title }));
    });
    place.append(make("table", {}, make("caption", { id: `${id}-caption` }),
      make("thead", {}, make("tr", {}, ...head)), make("tbody")));
  }
  place.querySelector("caption").textContent = caption;
  for (const head of place.querySelectorAll("thead th")) {
    if (head.dataset.column === name) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  }
  const by = columns.find((column) => column.name === name);
  const sorted = by ? rows.toSorted((a, b) => compared(by.value(a), by.value(b), down)) : rows;
  place.querySelector("tbody").replaceChildren(...sorted.slice(0, most).map((row) =>
    make("tr", { class: rowClass?.(row) }, ...columns.map((column) => {
      const content = column.cell ? column.cell(row) : column.value(row);
      const look = { class: [column.number && "number", column.look?.(row)].filter(Boolean).join(" ") || null };
      return column.head ? make("th", { scope: "row", ...look }, content) : make("td", look, content ?? "");
    }))));
}

/** What is missing comes last either way. */
function compared(a, b, down) {
  const [noA, noB] = [a == null || a === "", b == null || b === ""];
  if (noA || noB) return noA - noB;
  const order = typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b;
  return down ? -order : order;
}

/** The order after a click on a column: upwards, downwards, as it came. */
function nextOrder(order, name) {
  return order === name ? `-${name}` : order === `-${name}` ? "" : name;
}
