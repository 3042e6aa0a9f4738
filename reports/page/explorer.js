// The chart with its controls: what it shows, of which level, mode, setting and dimensionality.

const ALL = "all";

const explorer = {
  state: { shown: null, level: null, mode: null, setting: null, ndim: ALL },
  hidden: new Set(),

  start() {
    if (!cases.length) return;
    explorer.begin();
    explorer.complete();
    explorer.controls();
    explorer.draw();
    let width = window.innerWidth;
    window.addEventListener("resize", () => {
      if (window.innerWidth === width) return;
      width = window.innerWidth;
      explorer.draw();
    });
  },

  /** Begin with the group of which most was measured, the first of equals. */
  begin() {
    const sizes = groups.map(() => 0);
    for (const record of cases) sizes[record.group] += record.status === "ok" ? 1 : 0;
    const setting = sizes.indexOf(Math.max(...sizes));
    const { level, mode } = groups[setting];
    Object.assign(explorer.state, { level, mode, setting });
  },

  /** Keep what is possible of the state and fill the rest with the first choice. */
  complete() {
    const { state } = explorer;
    const keep = (name, choices) => {
      if (!choices.includes(state[name])) [state[name]] = choices;
    };
    keep("level", distinct(groups.map((group) => group.level)));
    keep(
      "mode",
      distinct(groups.filter((group) => group.level === state.level).map((group) => group.mode)),
    );
    keep(
      "setting",
      explorer.settings().map((group) => groups.indexOf(group)),
    );
    keep(
      "shown",
      explorer.offers().map(([name]) => name),
    );
    keep("ndim", [ALL, ...explorer.dimensions()]);
  },

  group() {
    return groups[explorer.state.setting];
  },

  /** The groups of the chosen level and mode. */
  settings() {
    const { level, mode } = explorer.state;
    return groups.filter((group) => group.level === level && group.mode === mode);
  },

  cases() {
    return cases.filter((record) => record.group === explorer.state.setting);
  },

  quantity() {
    return quantities.find((quantity) => quantity.name === explorer.state.shown);
  },

  /** What can be shown: quantities over the length, then the further charts. */
  offers() {
    const all = explorer.cases();
    const known = quantities.filter((quantity) => hasValues(all, quantity));
    const offered = known.length ? known : quantities.slice(0, 1);
    const further = new Map(explorer.group().charts.map((chart) => [chart.name, chart.title]));
    return [...offered.map((quantity) => [quantity.name, quantity.title]), ...further];
  },

  dimensions() {
    const found = explorer.quantity()
      ? explorer.cases()
      : explorer.group().charts.filter((chart) => chart.name === explorer.state.shown);
    return distinct(found.map((one) => String(one.ndim))).sort();
  },

  /** Panels of all dimensionalities fit side by side, unless each has a panel per series. */
  shownDimensions() {
    const found = explorer.dimensions();
    const { ndim } = explorer.state;
    if (ndim !== ALL) return [ndim];
    return explorer.isStacked() ? found.slice(0, 1) : found;
  },

  isStacked() {
    const chart = explorer.group().charts.find((other) => other.name === explorer.state.shown);
    return chart?.form === "stack";
  },

  /** The controls for the present state; a choice of one is not offered. */
  controls() {
    const { state } = explorer;
    const group = explorer.group();
    const ofLevel = groups.filter((other) => other.level === state.level);
    const dimensions = explorer.dimensions();
    const chosen = explorer.shownDimensions();
    const each = dimensions.map((ndim) => [ndim, `${ndim}-D`]);
    document.getElementById("controls").replaceChildren(
      choice("shown", "Show", explorer.offers(), state.shown),
      choice(
        "level",
        "Level",
        distinct(groups.map((other) => other.level)).map((level) => [
          level,
          titleOf(level, "level"),
        ]),
        state.level,
      ),
      choice(
        "mode",
        "Mode",
        distinct(ofLevel.map((other) => other.mode)).map((mode) => [mode, titleOf(mode, "mode")]),
        state.mode,
      ),
      choice(
        "ndim",
        "Canvas",
        explorer.isStacked() || each.length < 2 ? each : [[ALL, "side by side"], ...each],
        chosen.length > 1 ? ALL : chosen[0],
      ),
      settingChoice(explorer.settings()),
    );
    document.getElementById("chart-title").textContent = group.heading;
    document.getElementById("chart-setting").textContent = group.setting;
  },

  set(name, value) {
    explorer.state[name] = value;
    explorer.complete();
    const focused = document.activeElement?.id;
    explorer.controls();
    if (focused) document.getElementById(focused)?.focus();
    explorer.draw();
  },

  /** Draw what is chosen: a view knows its legend, panels, notes and numbers. */
  draw() {
    tooltip.hide();
    const dimensions = explorer.shownDimensions();
    const quantity = explorer.quantity();
    const view = quantity
      ? quantityView(quantity, dimensions)
      : formView(explorer.state.shown, dimensions);
    explorer.legend(view);
    const host = document.getElementById("panels");
    const isEmpty = !view.panels.length;
    const figures = view.panels.map(({ title }) =>
      element("figure", { class: "panel" }, element("figcaption", { text: title })),
    );
    host.classList.toggle("several", figures.length > 1);
    host.replaceChildren(...(isEmpty ? [element("p", { text: "No series is chosen." })] : figures));
    view.panels.forEach(({ draw }, index) => draw(figures[index]));
    document.getElementById("chart-axis").textContent = view.caption;
    document
      .getElementById("chart-notes")
      .replaceChildren(...view.notes.map((text) => element("li", { text })));
    document.getElementById("numbers").replaceChildren(numbersTable(view.numbers));
  },

  /** A button per line that shows and hides it; the signs of failures. */
  legend(view) {
    const host = document.getElementById("legend");
    host.replaceChildren(
      ...view.lines.map((line, index) => legendButton(line, index, view.hasBars)),
    );
    if (view.lines.length > 2) host.append(allOrNone(view.lines));
    for (const status of view.failures) {
      host.append(
        element("span", {
          class: "key",
          text: `${FAILURE_SIGNS[status]} ${data.failures[status]}`,
        }),
      );
    }
  },
};

/** Radio buttons in a row. */
function choice(name, title, options, chosen) {
  if (options.length < 2) return "";
  const list = element("div", { class: "options" });
  options.forEach(([value, text], index) => {
    const id = `${name}-${index}`;
    const input = element("input", { type: "radio", name, id, value });
    input.checked = chosen === value;
    input.addEventListener("change", () => explorer.set(name, value));
    list.append(element("span", {}, input, element("label", { for: id, text })));
  });
  return element("fieldset", { class: "choice" }, element("legend", { text: title }), list);
}

function settingChoice(settings) {
  if (settings.length < 2) return "";
  const select = element("select", { id: "setting" });
  for (const group of settings) {
    select.append(element("option", { value: groups.indexOf(group), text: group.setting }));
  }
  select.value = String(explorer.state.setting);
  select.addEventListener("change", () => explorer.set("setting", Number(select.value)));
  return element(
    "label",
    { class: "choice setting" },
    element("span", { text: "Setting" }),
    select,
  );
}

function legendButton(line, index, hasBar) {
  const isOn = !explorer.hidden.has(line.name);
  const id = `line-${index}`;
  const button = element(
    "button",
    { type: "button", id, "aria-pressed": String(isOn) },
    swatch(line, hasBar),
    element("span", { text: line.name }),
  );
  button.addEventListener("click", () => {
    if (isOn) explorer.hidden.add(line.name);
    else explorer.hidden.delete(line.name);
    explorer.draw();
    document.getElementById(id)?.focus();
  });
  button.addEventListener("pointerenter", () => emphasise(line.name));
  button.addEventListener("pointerleave", () => emphasise(null));
  return button;
}

/** Dim every line but one; none with null. */
function emphasise(name) {
  for (const group of document.querySelectorAll("#panels .series")) {
    group.classList.toggle("dim", name !== null && group.dataset.series !== name);
  }
}

function allOrNone(lines) {
  const isAnyHidden = lines.some(({ name }) => explorer.hidden.has(name));
  const text = isAnyHidden ? "show all" : "hide all";
  const button = element("button", { type: "button", class: "plain", id: "all-series", text });
  button.addEventListener("click", () => {
    for (const { name } of lines) {
      if (isAnyHidden) explorer.hidden.delete(name);
      else explorer.hidden.add(name);
    }
    explorer.draw();
    document.getElementById("all-series")?.focus();
  });
  return button;
}

/** `Layer` and `forward` of the heading `Layer, forward`. */
function titleOf(value, kind) {
  const { heading } = groups.find((group) => group[kind] === value);
  const [level, ...mode] = heading.split(", ");
  return kind === "level" ? level : mode.join(", ");
}

/** The numbers behind a chart: { corner, heads, lines: [name, cells] }. */
function numbersTable({ corner, heads, lines }) {
  const head = element("tr", {}, element("th", { scope: "col", text: corner }));
  for (const text of heads) head.append(element("th", { scope: "col", class: "n", text }));
  const body = element("tbody");
  for (const [name, cells] of lines) {
    const line = element("tr", {}, element("th", { scope: "row", text: name }));
    for (const text of cells) line.append(element("td", { class: "n", text }));
    body.append(line);
  }
  return element("table", {}, element("thead", {}, head), body);
}
