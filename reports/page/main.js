// What happens when the page is open.

/** Light or dark as the system has it, or as chosen here. */
function startTheme() {
  const root = document.documentElement;
  const button = document.getElementById("theme");
  const isDark = () =>
    root.dataset.theme
      ? root.dataset.theme === "dark"
      : window.matchMedia("(prefers-color-scheme: dark)").matches;
  const say = () => {
    button.textContent = isDark() ? "Light page" : "Dark page";
  };
  button.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    say();
  });
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", say);
  button.hidden = false;
  say();
}

cases.forEach((record) => {
  record.rows = [];
});
rows.forEach((row) => {
  if (row.case !== null) cases[row.case].rows.push(row);
});
quantities.forEach((quantity) => {
  const isBare = ["significant", "rate", "count"].includes(quantity.format);
  quantity.unit = isBare ? (/\(([^)]*)\)/.exec(quantity.axis)?.[1] ?? "") : "";
});

document.documentElement.classList.add("live");
startTheme();
explorer.start();
table.start();
download.start();
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") tooltip.hide();
});
window.addEventListener("beforeprint", () => tooltip.hide());
