// The chart with its controls: which quantity, level, mode, setting and dimensionality it shows.

const explorer = {
  state: { quantity: null, level: null, mode: null, setting: null, ndim: "all" },
  hidden: new Set(),

  start() {
    if (!cases.length) return;
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

  /** Keep what is possible of the state and fill the rest with the first choice. */
  complete() {
    const { state } = explorer;
    const keep = (name, choices) => {
      if (!choices.includes(state[name])) [state[name]] = choices;
      return choices;
    };
    keep("level", distinct(groups.map((group) => group.level)));
    const ofLevel = groups.filter((group) => group.level === state.level);
    keep("mode", distinct(ofLevel.map((group) => group.mode)));
    const ofMode = ofLevel.filter((group) => group.mode === state.mode);
    keep("setting", ofMode.map((group) => groups.indexOf(group)));
    const shown = explorer.cases();
    const names = quantities.filter((quantity) => hasValues(shown, quantity)).map((q) => q.name);
    keep("quantity", names.length ? names : [quantities[0].name]);
    const dimensions = distinct(shown.map((record) => String(record.ndim)));
    keep("ndim", dimensions.length > 1 ? ["all", ...dimensions] : dimensions);
  },

  group() {
    return groups[explorer.state.setting];
  },

  cases() {
    return cases.filter((record) => record.group === explorer.state.setting);
  },

  /** The controls for the present state; a choice of one is not offered. */
  controls() {
    const { state } = explorer;
    const group = explorer.group();
    const all = explorer.cases();
    const levels = distinct(groups.map((other) => other.level));
    const ofLevel = groups.filter((other) => other.level === state.level);
    const settings = ofLevel.filter((other) => other.mode === state.mode);
    const dimensions = distinct(all.map((record) => String(record.ndim))).sort();
    const host = document.getElementById("controls");
    host.replaceChildren(
      choice("quantity", "Quantity", quantities
        .filter((quantity) => hasValues(all, quantity))
        .map((quantity) => [quantity.name, quantity.title])),
      choice("level", "Level", levels.map((level) => [level, titleOf(level, "level")])),
      choice("mode", "Mode", distinct(ofLevel.map((other) => other.mode))
        .map((mode) => [mode, titleOf(mode, "mode")])),
      choice("ndim", "Canvas", dimensions.length > 1
        ? [["all", "side by side"], ...dimensions.map((ndim) => [ndim, `${ndim}-D`])] : []),
      settings.length > 1 ? settingChoice(settings) : "",
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

  draw() {
    tooltip.hide();
    const { state } = explorer;
    const quantity = quantities.find((other) => other.name === state.quantity);
    const shown = explorer.cases().filter((record) => isShown(record, quantity));
    const inView = shown.filter((record) => state.ndim === "all" || String(record.ndim) === state.ndim);
    const visible = inView.filter((record) => !explorer.hidden.has(record.line));
    explorer.legend(inView);
    const host = document.getElementById("panels");
    const dimensions = distinct(visible.map((record) => record.ndim)).sort();
    host.classList.toggle("several", dimensions.length > 1);
    host.replaceChildren();
    if (!visible.length) host.append(element("p", { text: "No series is chosen." }));
    const shared = {
      quantity,
      limits: valueLimits(visible, quantity),
      lengths: distinct(visible.map((record) => record.seq_len)),
    };
    const figures = dimensions.map(
      (ndim) => element("figure", { class: "panel" }, element("figcaption", { text: `${ndim}-D canvas` })),
    );
    host.append(...figures);
    dimensions.forEach((ndim, index) => {
      const width = figures[index].clientWidth;
      const own = visible.filter((record) => record.ndim === ndim);
      drawPanel(figures[index], {
        ...shared,
        width,
        height: width < 420 ? 300 : 340,
        cases: own,
        crossings: explorer.crossings(ndim).filter((crossing) => !explorer.hidden.has(crossing.line)),
        label: chartLabel(quantity, ndim, own),
      });
    });
    document.getElementById("chart-axis").textContent = quantity.axis;
    explorer.notes(quantity, dimensions);
    explorer.numbers(quantity, visible);
  },

  crossings(ndim) {
    return explorer.group().crossings
      .filter((crossing) => crossing.ndim === ndim)
      .map((crossing) => ({ ...crossing, line: lineNumber(crossing.series), text: crossingText(crossing) }))
      .filter((crossing) => crossing.line >= 0);
  },

  /** A button per series that shows and hides it. */
  legend(inView) {
    const host = document.getElementById("legend");
    const lines = distinct(inView.map((record) => record.line));
    const signs = distinct(inView.map((record) => record.status)).filter((status) => status in FAILURE_SIGNS);
    host.replaceChildren(...lines.map((line) => {
      const isOn = !explorer.hidden.has(line);
      const button = element(
        "button",
        { type: "button", id: `line-${line}`, "aria-pressed": String(isOn) },
        swatch(series[line]),
        element("span", { text: series[line].name }),
      );
      button.addEventListener("click", () => {
        if (isOn) explorer.hidden.add(line);
        else explorer.hidden.delete(line);
        explorer.draw();
        document.getElementById(`line-${line}`)?.focus();
      });
      const emphasise = (name) => () => document.getElementById("panels").querySelectorAll(".series")
        .forEach((drawnLine) => drawnLine.classList.toggle("dim", name !== null && drawnLine.dataset.series !== name));
      button.addEventListener("pointerenter", emphasise(series[line].name));
      button.addEventListener("pointerleave", emphasise(null));
      return button;
    }));
    if (lines.length > 2) host.append(allOrNone(lines));
    for (const status of signs) {
      host.append(element("span", { class: "key", text: `${FAILURE_SIGNS[status]} ${data.failures[status]}` }));
    }
  },

  notes(quantity, dimensions) {
    const notes = quantity.has_anchor ? [...explorer.group().notes] : [];
    if (quantity.has_anchor) {
      for (const ndim of dimensions) notes.push(...explorer.crossings(ndim).map((crossing) => crossing.text));
    }
    document.getElementById("chart-notes").replaceChildren(...notes.map((text) => element("li", { text })));
  },

  /** The numbers behind the chart as a table, for reading and for screen readers. */
  numbers(quantity, visible) {
    const lengths = distinct(visible.map((record) => record.seq_len)).sort((a, b) => a - b);
    const head = element("tr", {}, element("th", { scope: "col", text: quantity.axis }));
    for (const length of lengths) head.append(element("th", { scope: "col", class: "n", text: format.tokens(length) }));
    const body = element("tbody");
    for (const ndim of distinct(visible.map((record) => record.ndim)).sort()) {
      for (const line of distinct(visible.map((record) => record.line))) {
        const own = visible.filter((record) => record.line === line && record.ndim === ndim && record.is_squarest);
        if (own.length) body.append(numbersLine(`${ndim}-D ${series[line].name}`, own, lengths, quantity));
      }
    }
    const table = element("table", {}, element("thead", {}, head), body);
    document.getElementById("numbers").replaceChildren(table);
  },
};

/** Radio buttons in a row. */
function choice(name, title, options) {
  if (options.length < 2) return "";
  const list = element("div", { class: "options" });
  options.forEach(([value, text], index) => {
    const id = `${name}-${index}`;
    const input = element("input", { type: "radio", name, id, value });
    input.checked = explorer.state[name] === value;
    input.addEventListener("change", () => explorer.set(name, value));
    list.append(element("span", {}, input, element("label", { for: id, text })));
  });
  return element("fieldset", { class: "choice" }, element("legend", { text: title }), list);
}

function settingChoice(settings) {
  const select = element("select", { id: "setting" });
  for (const group of settings) {
    select.append(element("option", { value: groups.indexOf(group), text: group.setting }));
  }
  select.value = String(explorer.state.setting);
  select.addEventListener("change", () => explorer.set("setting", Number(select.value)));
  return element("label", { class: "choice setting" }, element("span", { text: "Setting" }), select);
}

function allOrNone(lines) {
  const isAnyHidden = lines.some((line) => explorer.hidden.has(line));
  const button = element("button", { type: "button", class: "plain", id: "all-series", text: isAnyHidden ? "show all" : "hide all" });
  button.addEventListener("click", () => {
    for (const line of lines) {
      if (isAnyHidden) explorer.hidden.delete(line);
      else explorer.hidden.add(line);
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

function hasValues(shown, quantity) {
  return shown.some((record) => record[`${quantity.name}:value`] !== null
    && !(quantity.has_anchor && series[record.line].name === record.anchor));
}

/** Measured cases with this quantity, and failures; what is unsupported is only listed. */
function isShown(record, quantity) {
  if (!record.seq_len || record.status === "unsupported") return false;
  return record[`${quantity.name}:value`] !== null || record.status in FAILURE_SIGNS;
}

function valueLimits(visible, quantity) {
  const values = quantity.has_anchor ? [1] : [];
  for (const record of visible) {
    for (const end of ["value", "lo", "hi"]) {
      const value = record[`${quantity.name}:${end}`];
      if (value !== null) values.push(value);
    }
  }
  return logLimits(values);
}

function lineNumber(name) {
  const found = cases.find((record) => record.group === explorer.state.setting && series[record.line].name === name);
  return found ? found.line : -1;
}

function crossingText(crossing) {
  const ends = [crossing.lo, crossing.hi].map((end) => (end === null ? "?" : format.tokens(end)));
  const verb = crossing.verdict === "from" ? "overtakes its anchor at" : "is faster than its anchor only up to";
  return `${crossing.ndim}-D: ${crossing.series} ${verb} ${format.tokens(crossing.seq_len)} tokens (${ends[0]} to ${ends[1]})`;
}

function chartLabel(quantity, ndim, own) {
  const names = distinct(own.map((record) => series[record.line].name));
  const count = plural(names.length, "line");
  return `${explorer.group().heading}, ${ndim}-D canvas: ${quantity.axis} over sequence length, ${count}. `
    + "Arrow keys walk along a line and between lines; the same numbers are in the table below.";
}

function numbersLine(name, own, lengths, quantity) {
  const line = element("tr", {}, element("th", { scope: "row", text: name }));
  for (const length of lengths) {
    const record = own.find((other) => other.seq_len === length);
    let text = "";
    if (record) text = quantityText(record, quantity) || (data.failures[record.status] ?? record.status);
    line.append(element("td", { class: "n", text }));
  }
  return line;
}
