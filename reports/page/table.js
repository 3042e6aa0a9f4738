// The table of all rows: sorted by any column, filtered by text and by choice, one page at a time.

const PAGE_ROWS = 50;
const CHOICES = ["level", "mode", "series", "status", "run_id"];

const table = {
  columns: [],
  sort: { column: null, isDown: false },
  text: "",
  chosen: {},
  page: 0,

  start() {
    if (!rows.length) return;
    table.columns = data.shown.filter(
      (shown) => distinct(rows.map((row) => row[shown.column])).length > 1,
    );
    if (!table.columns.length) table.columns = data.shown.slice(0, 7);
    table.sayConstants();
    table.filters();
    table.head();
    table.draw();
  },

  /** Columns that are the same in all rows are said once, not shown. */
  sayConstants() {
    const same = data.shown.filter(
      (shown) => !table.columns.includes(shown) && rows[0][shown.column] !== null,
    );
    const texts = same.map((shown) => `${shown.title} ${cellText(rows[0], shown)}`);
    if (texts.length && rows.length > 1) {
      document.getElementById("rows-same").textContent =
        `The same in every row: ${texts.join(", ")}.`;
    }
  },

  filters() {
    const host = document.getElementById("filters");
    const search = element("input", {
      type: "search",
      id: "filter-text",
      placeholder: "any text in a row",
    });
    search.addEventListener("input", () =>
      table.change(() => {
        table.text = search.value;
      }),
    );
    host.append(element("label", {}, element("span", { text: "Filter" }), search));
    for (const name of CHOICES) {
      const values = distinct(rows.map((row) => row[name])).filter((value) => value !== null);
      if (values.length > 1) host.append(table.filter(name, values));
    }
    const reset = element("button", { type: "button", class: "plain", text: "clear filters" });
    reset.addEventListener("click", () => {
      for (const control of host.querySelectorAll("input, select")) control.value = "";
      table.change(() => {
        table.text = "";
        table.chosen = {};
      });
    });
    host.append(reset);
  },

  filter(name, values) {
    const select = element(
      "select",
      { id: `filter-${name}` },
      element("option", { value: "", text: "all" }),
    );
    values.forEach((value, index) =>
      select.append(element("option", { value: index, text: value })),
    );
    select.addEventListener("change", () =>
      table.change(() => {
        if (select.value === "") delete table.chosen[name];
        else table.chosen[name] = values[Number(select.value)];
      }),
    );
    const { title } = data.shown.find((shown) => shown.column === name);
    return element("label", {}, element("span", { text: title }), select);
  },

  head() {
    const line = element(
      "tr",
      {},
      element("td", {}, element("span", { class: "visually-hidden", text: "details" })),
    );
    for (const shown of table.columns) {
      const button = element("button", { type: "button" }, element("span", { text: shown.title }));
      if (shown.unit) button.append(element("small", { text: shown.unit }));
      const cell = element("th", { scope: "col", class: isNumber(shown) ? "n" : null }, button);
      button.addEventListener("click", () => table.change(() => table.sortBy(shown)));
      line.append(cell);
    }
    document.getElementById("rows-head").replaceChildren(line);
  },

  /** Up, then down, then the order of the report again. */
  sortBy(shown) {
    const { sort } = table;
    if (sort.column !== shown) table.sort = { column: shown, isDown: false };
    else
      table.sort = sort.isDown ? { column: null, isDown: false } : { column: shown, isDown: true };
  },

  change(how) {
    how();
    table.page = 0;
    table.draw();
  },

  /** The rows that pass the filters, in the chosen order. */
  visible() {
    const words = table.text.toLowerCase().split(/\s+/).filter(Boolean);
    const found = rows.filter(
      (row) =>
        Object.entries(table.chosen).every(([name, value]) => row[name] === value) &&
        (!words.length || words.every((word) => searched(row).includes(word))),
    );
    const { column, isDown } = table.sort;
    if (!column) return found;
    const sign = isDown ? -1 : 1;
    return found
      .map((row, index) => ({ row, index, key: row[column.column] }))
      .sort((a, b) => compared(a.key, b.key, sign) || a.index - b.index)
      .map(({ row }) => row);
  },

  draw() {
    const found = table.visible();
    const pages = Math.max(Math.ceil(found.length / PAGE_ROWS), 1);
    table.page = Math.min(table.page, pages - 1);
    const first = table.page * PAGE_ROWS;
    const shown = found.slice(first, first + PAGE_ROWS);
    document.getElementById("rows-body").replaceChildren(...shown.map((row) => table.line(row)));
    const part =
      found.length > shown.length ? `, ${first + 1} to ${first + shown.length} shown` : "";
    document.getElementById("rows-count").textContent =
      `${plural(found.length, "row")} of ${format.count(rows.length)}${part}`;
    [...document.querySelectorAll("#rows-head th")].forEach((cell, index) => {
      const isSorted = table.columns[index] === table.sort.column;
      const order = table.sort.isDown ? "descending" : "ascending";
      cell.setAttribute("aria-sort", isSorted ? order : "none");
    });
    table.pager(pages);
  },

  line(row) {
    const name = `all columns of ${row.case_path ?? row.series}`;
    const button = element("button", {
      type: "button",
      class: "plain",
      "aria-label": name,
      text: "all",
    });
    button.addEventListener("click", () => showRow(row));
    const line = element(
      "tr",
      { class: row.status === "ok" ? null : "bad" },
      element("td", {}, button),
    );
    for (const shown of table.columns) {
      const text = cellText(row, shown);
      const kind = isNumber(shown) ? "n" : "cut";
      line.append(element("td", { text, class: kind, title: text.length > 40 ? text : null }));
    }
    return line;
  },

  pager(pages) {
    const host = document.getElementById("pager");
    const focused = host.contains(document.activeElement)
      ? document.activeElement.textContent
      : null;
    host.replaceChildren();
    host.hidden = pages < 2;
    const step = (text, to) => {
      const button = element("button", { type: "button", text, disabled: to < 0 || to >= pages });
      button.addEventListener("click", () => {
        table.page = to;
        table.draw();
      });
      host.append(button);
      if (text === focused) button.focus();
    };
    step("first", table.page ? 0 : -1);
    step("previous", table.page - 1);
    host.append(element("span", { text: `page ${table.page + 1} of ${pages}` }));
    step("next", table.page + 1);
    step("last", table.page < pages - 1 ? pages - 1 : pages);
  },
};

/** Every known column of a row, over the page. */
function showRow(row) {
  const list = element("dl");
  for (const [name, unit] of Object.entries(data.units)) {
    const value = row[name];
    if (value !== null && value !== undefined) {
      const text = unit ? `${value} ${unit}` : String(value);
      list.append(element("dt", { text: name }), element("dd", { text }));
    }
  }
  document.getElementById("row-title").textContent = row.series ?? "Row";
  document.getElementById("row-columns").replaceChildren(list);
  document.getElementById("row").showModal();
}

function isNumber(shown) {
  return shown.format !== "text";
}

/** Which columns of a row are marked by which other column. */
const SURENESS = { latency_ms: "is_sure", speedup: "is_speedup_sure" };

function cellText(row, shown) {
  const value = row[shown.column];
  if (value === null) return "";
  const isUnsure = row[SURENESS[shown.column]] === false;
  return format[shown.format](value) + (isUnsure ? data.few_samples.mark : "");
}

const searchable = new Map();

/** Everything that a row shows or says, in lower case. */
function searched(row) {
  if (!searchable.has(row)) {
    const texts = data.shown.map((shown) => cellText(row, shown));
    searchable.set(row, [row.case_path, ...texts].join(" ").toLowerCase());
  }
  return searchable.get(row);
}

/** Numbers by size, texts by alphabet with their numbers by size; what is unknown comes last. */
function compared(a, b, sign) {
  if (a === null || b === null) return (a === null) - (b === null);
  if (typeof a === "number" && typeof b === "number") return sign * (a - b);
  return sign * String(a).localeCompare(String(b), "en", { numeric: true });
}
