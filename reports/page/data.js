// The data of the page: columns as they were packed by reports/page_data.py.

const data = JSON.parse(document.getElementById("data").textContent);

/** A packed column as plain values: all equal, chosen from a list, or one by one. */
function unpacked(column, length) {
  if ("all" in column) return new Array(length).fill(column.all);
  if ("of" in column) return column.at.map((index) => column.of[index]);
  return column.each;
}

/** Records from packed columns: an array of objects. */
function records(table) {
  const columns = Object.entries(table.columns).map(([name, column]) => [
    name,
    unpacked(column, table.length),
  ]);
  return Array.from({ length: table.length }, (_, index) => {
    const record = {};
    for (const [name, values] of columns) record[name] = values[index];
    return record;
  });
}

const cases = records(data.cases);
const rows = records(data.rows);
const groups = data.groups;
const series = data.series;
const quantities = data.quantities;

function distinct(values) {
  return [...new Set(values)];
}

/** An element with attributes and children; text is always set as text, never as markup. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (key === "text") made.textContent = value;
    else made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

const SVG = "http://www.w3.org/2000/svg";

function drawn(name, attributes = {}, ...children) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined) continue;
    if (key === "text") made.textContent = value;
    else made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}
