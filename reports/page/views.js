// What the explorer shows of a quantity over the length, and of a further chart.
// A view: { lines, hasBars, failures, panels: [{ title, draw }], caption, notes, numbers }.

function quantityView(quantity, dimensions) {
  const inView = explorer
    .cases()
    .filter((record) => isShown(record, quantity) && dimensions.includes(String(record.ndim)));
  const visible = inView.filter((record) => !explorer.hidden.has(series[record.line].name));
  const shared = {
    quantity,
    limits: valueLimits(visible, quantity),
    lengths: distinct(visible.map((record) => record.seq_len)),
  };
  const crossings = quantity.has_anchor ? crossingsOf(explorer.group(), dimensions) : [];
  const panels = dimensions
    .map((ndim) => [ndim, visible.filter((record) => String(record.ndim) === ndim)])
    .filter(([, own]) => own.length)
    .map(([ndim, own]) => ({
      title: `${ndim}-D canvas`,
      draw: (host) =>
        drawQuantity(host, {
          ...shared,
          cases: own,
          crossings: crossings.filter(
            (crossing) => String(crossing.ndim) === ndim && !explorer.hidden.has(crossing.series),
          ),
          label: chartLabel(quantity, ndim, own),
        }),
    }));
  return {
    lines: distinct(inView.map((record) => record.line)).map((line) => series[line]),
    hasBars: false,
    failures: distinct(inView.map((record) => record.status)).filter(
      (status) => status in FAILURE_SIGNS,
    ),
    panels,
    caption: `${quantity.axis} over sequence length`,
    notes: quantity.has_anchor
      ? [...explorer.group().notes, ...crossings.map(crossingText)]
      : inView.some((record) => record[`${quantity.name}:is_sure`] === false)
        ? [data.few_samples.note]
        : [],
    numbers: quantityNumbers(quantity, visible),
  };
}

function formView(name, dimensions) {
  const charts = explorer
    .group()
    .charts.filter((chart) => chart.name === name && dimensions.includes(String(chart.ndim)));
  const looks = new Map();
  for (const line of charts.flatMap((chart) => chart.lines)) {
    if (!line.is_reference && !looks.has(line.name)) looks.set(line.name, line);
  }
  const isOn = (line) => !explorer.hidden.has(line.name.replace(/^ideal, /, ""));
  const shared = sharedScales(charts, isOn);
  const isCells = charts[0].form === "cells";
  return {
    lines: isCells ? [] : [...looks.values()],
    hasBars: hasBars(charts[0]),
    failures: [],
    panels: shared.xs.length
      ? charts.map((chart) => ({
          title: chart.panel,
          draw: (host) =>
            drawForm(host, chart, isCells ? chart.lines : chart.lines.filter(isOn), shared),
        }))
      : [],
    caption: charts[0].caption,
    notes: [],
    numbers: formNumbers(charts, shared),
  };
}

function hasValues(shown, quantity) {
  return shown.some(
    (record) =>
      record[`${quantity.name}:value`] !== null &&
      !(quantity.has_anchor && series[record.line].name === record.anchor),
  );
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

function crossingsOf(group, dimensions) {
  return group.crossings
    .filter((crossing) => dimensions.includes(String(crossing.ndim)))
    .map((crossing) => ({
      ...crossing,
      look: series.find((line) => line.name === crossing.series),
    }));
}

function crossingText(crossing) {
  const ends = [crossing.lo, crossing.hi].map((end) => (end === null ? "?" : format.tokens(end)));
  const verb =
    crossing.verdict === "from"
      ? "overtakes its anchor at"
      : "is faster than its anchor only up to";
  const place = `${format.tokens(crossing.seq_len)} tokens (${ends[0]} to ${ends[1]})`;
  return `${crossing.ndim}-D: ${crossing.series} ${verb} ${place}`;
}

function chartLabel(quantity, ndim, own) {
  const names = distinct(own.map((record) => series[record.line].name));
  const lead = `${explorer.group().heading}, ${ndim}-D canvas`;
  return `${lead}: ${quantity.axis} over sequence length, ${plural(names.length, "line")}.`;
}

function quantityNumbers(quantity, visible) {
  const lengths = distinct(visible.map((record) => record.seq_len)).sort((a, b) => a - b);
  const text = (record) =>
    record ? quantityText(record, quantity) || (data.failures[record.status] ?? record.status) : "";
  const lines = [];
  for (const ndim of distinct(visible.map((record) => record.ndim)).sort()) {
    for (const line of distinct(visible.map((record) => record.line))) {
      const own = visible.filter(
        (record) => record.line === line && record.ndim === ndim && record.is_squarest,
      );
      const cells = lengths.map((length) => text(own.find((record) => record.seq_len === length)));
      if (own.length) lines.push([`${ndim}-D ${series[line].name}`, cells]);
    }
  }
  return { corner: quantity.axis, heads: lengths.map(format.tokens), lines };
}

/** A column per value of x; where every point has its own x, a column per point. */
function formNumbers(charts, { xs }) {
  const { x, y } = charts[0];
  const isShared = xs.length <= 16;
  const text = ([, value, low, high, more]) => {
    const write = format[y.format];
    const interval =
      low === null || high === null || low === high ? "" : ` (${write(low)} to ${write(high)})`;
    return `${write(value)}${interval}${more ? `, ${more}` : ""}`;
  };
  const lines = charts.flatMap((chart) =>
    chart.lines
      .filter((line) => !line.is_reference)
      .map((line) => {
        const found = isShared
          ? xs.map((place) => line.points.find(([own]) => own === place))
          : line.points;
        return [`${chart.panel}, ${line.name}`, found.map((point) => (point ? text(point) : ""))];
      }),
  );
  const most = Math.max(0, ...lines.map(([, cells]) => cells.length));
  const heads = isShared
    ? xs.map((place) => format[x.format](place))
    : Array.from({ length: most }, () => "");
  return { corner: `${y.title} by ${x.title}`, heads, lines };
}
