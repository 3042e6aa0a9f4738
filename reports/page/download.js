// The rows as files, made in the browser: CSV for spreadsheets, JSON for programs.

const COLUMNS = Object.keys(data.rows.columns).filter((name) => name !== "case");

const download = {
  start() {
    const name = document.title.replace(/[^\w.-]+/g, "-") || "report";
    const offers = [
      ["csv-all", () => [`${name}.csv`, "text/csv", csvText(rows)]],
      ["csv-shown", () => [`${name}-selection.csv`, "text/csv", csvText(table.visible())]],
      ["json-all", () => [`${name}.json`, "application/json", jsonText(rows)]],
    ];
    for (const [id, make] of offers) {
      document.getElementById(id)?.addEventListener("click", () => download.save(...make()));
    }
  },

  save(name, type, text) {
    const address = URL.createObjectURL(new Blob([text], { type }));
    const link = element("a", { href: address, download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
  },
};

function csvText(some) {
  const lines = some.map((row) => COLUMNS.map((name) => csvCell(row[name])).join(","));
  return `${[COLUMNS.join(","), ...lines].join("\r\n")}\r\n`;
}

/** A text that a spreadsheet would run as a formula gets an apostrophe in front. */
function csvCell(value) {
  if (value === null) return "";
  if (typeof value !== "string") return String(value);
  const text = /^[=+\-@\t\r]/.test(value) ? `'${value}` : value;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function jsonText(some) {
  const lines = some.map((row) =>
    JSON.stringify(Object.fromEntries(COLUMNS.map((name) => [name, row[name]]))),
  );
  return `[\n${lines.join(",\n")}\n]\n`;
}
