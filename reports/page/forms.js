// Panels of the further charts: curves, bars, stacks and cells, all made of lines of points.

const BAR_ROOM = 0.8;
const CELL = 30;
const STRONGEST = 55;

/** chart: a panel of reports/page_charts.py; lines: those of it that are shown. */
function drawForm(host, chart, lines, shared) {
  const names = plural(lines.filter((line) => !line.is_reference).length, "line");
  const label = `${chart.title}, ${chart.panel}: ${chart.y.title} over ${chart.x.title}, ${names}.`;
  const height = chart.form === "cells" ? lines.length * CELL + 54 : null;
  const blank = blankPanel(host, label, height);
  const points = { curves: drawCurves, bars: drawBars, stack: drawStack, cells: drawCells }[
    chart.form
  ](blank, chart, lines, shared);
  listen(blank, points, (point) => pointLines(chart, point.of, point.value));
}

/** The values of x and the limits of y that panels side by side have in common. */
function sharedScales(charts, isOn) {
  const points = charts.flatMap((chart) => chart.lines.filter(isOn).flatMap((line) => line.points));
  const ys = points.flatMap(([, y, low, high]) => [y, low ?? y, high ?? y]);
  return { xs: distinct(points.map(([x]) => x)).sort((a, b) => a - b), ys };
}

function pointLines(chart, line, [x, y, low, high, more]) {
  const write = format[chart.y.format];
  const interval =
    low === null || high === null || low === high ? "" : ` (${write(low)} to ${write(high)})`;
  return [
    element(
      "p",
      { class: "name" },
      swatch(line, hasBars(chart)),
      element("span", { text: line.name, "data-say": "" }),
    ),
    element("p", {
      class: "place",
      text: `${chart.panel}, ${format[chart.x.format](x)} ${unitOf(chart.x)}`,
    }),
    element("p", { class: "chosen", text: `${chart.y.title}: ${write(y)}${interval}` }),
    ...(more ? [element("p", { class: "place", text: more })] : []),
  ];
}

function hasBars(chart) {
  return chart.form === "bars" || chart.form === "stack";
}

function unitOf(axis) {
  return { tokens: "tokens", percent: "sparse" }[axis.format] ?? axis.title;
}

function drawCurves(blank, chart, lines, shared) {
  const { svg, area } = blank;
  const limits = logLimits(shared.ys);
  const y = logScale(limits, [area.bottom, area.top]);
  const ends = [shared.xs[0], shared.xs[shared.xs.length - 1]];
  const isLog = chart.x.scale === "log";
  const inside = [area.left + 16, area.right - 16];
  const x = isLog
    ? logScale(logLimits(ends, 0.02), inside)
    : linearScale([0, Math.max(ends[1], 1)], inside);
  const xTicks = isLog ? decimalTicks(ends[0], ends[1], mostTicks(blank)) : [0, 0.25, 0.5, 0.75, 1];
  svg.append(
    axesOf(
      blank,
      xTicks.map((tick) => [
        x(tick),
        isLog ? trimmed(format[chart.x.format](tick)) : `${100 * tick}%`,
      ]),
      decimalTicks(...limits).map((tick) => [y(tick), trimmed(format[chart.y.format](tick))]),
      chart.x.title,
    ),
  );
  const points = [];
  for (const line of lines) {
    const at = line.points.map((value, step) => ({
      x: x(value[0]),
      y: y(value[1]),
      value,
      of: line,
      line: line.name,
      step,
    }));
    const path = `M${at.map((point) => `${point.x} ${point.y}`).join("L")}`;
    const kind = line.is_reference ? "line reference" : "line";
    const group = drawn("g", { class: `series c${line.colour}`, "data-series": line.name });
    group.append(
      drawn("path", {
        d: path,
        class: kind,
        "stroke-dasharray": line.is_reference ? "5 4" : dashes(line),
      }),
    );
    if (!line.is_reference) {
      const band = at.filter(({ value }) => value[2] !== null);
      if (band.length) {
        const upper = band.map(({ x: place, value }) => `${place} ${y(value[3])}`);
        const lower = band.map(({ x: place, value }) => `${place} ${y(value[2])}`).reverse();
        group.prepend(drawn("path", { d: `M${[...upper, ...lower].join("L")}Z`, class: "band" }));
      }
      group.append(
        ...at.map((point) =>
          marker(line.marker, 4.2, {
            transform: `translate(${point.x.toFixed(1)} ${point.y.toFixed(1)})`,
            class: "point",
          }),
        ),
      );
      points.push(...at);
    }
    svg.append(group);
  }
  return points;
}

/** A place of equal width for every value of x, and the axis below it. */
function steps(blank, shared) {
  const { area } = blank;
  const width = (area.right - area.left) / shared.xs.length;
  const left = (value) => area.left + shared.xs.indexOf(value) * width;
  const ticks = shared.xs.map((value) => [left(value) + width / 2, format.tokens(value)]);
  const every = Math.ceil(ticks.length / mostTicks(blank));
  return { width, left, ticks: ticks.filter((_, index) => index % every === 0) };
}

function boxed(line, value, left, right, top, bottom) {
  return {
    x: (left + right) / 2,
    y: top,
    value,
    of: line,
    line: line.name,
    step: value[0],
    box: { left, right, top, bottom },
  };
}

function drawBars(blank, chart, lines, shared) {
  const { svg, area } = blank;
  const top = Math.max(1, ...shared.ys) * 1.06;
  const y = linearScale([0, top], [area.bottom, area.top]);
  const { width, left, ticks } = steps(blank, shared);
  svg.append(
    axesOf(
      blank,
      ticks,
      linearTicks(top).map((tick) => [y(tick), trimmed(format[chart.y.format](tick))]),
      chart.x.title,
    ),
  );
  const one = (width * BAR_ROOM) / lines.length;
  const points = [];
  lines.forEach((line, index) => {
    const group = drawn("g", { class: `series c${line.colour}`, "data-series": line.name });
    for (const value of line.points) {
      const start = left(value[0]) + (width * (1 - BAR_ROOM)) / 2 + index * one;
      const point = boxed(line, value, start, start + one - 1, y(value[1]), area.bottom);
      points.push(point);
      group.append(drawn("path", { d: rectangle(point.box), class: "bar" }));
      if (value[2] !== null) {
        group.append(
          drawn("path", { d: `M${point.x} ${y(value[2])}V${y(value[3])}`, class: "whisker" }),
        );
      }
    }
    svg.append(group);
  });
  svg.append(drawn("path", { d: `M${area.left} ${y(1)}H${area.right}`, class: "reference" }));
  return points;
}

/** Parts of a whole, one on the other; the height is the share. */
function drawStack(blank, chart, lines, shared) {
  const { svg, area } = blank;
  const y = linearScale([0, 1], [area.bottom, area.top]);
  const { width, left, ticks } = steps(blank, shared);
  svg.append(
    axesOf(
      blank,
      ticks,
      [0, 0.25, 0.5, 0.75, 1].map((tick) => [y(tick), `${100 * tick}%`]),
      chart.x.title,
    ),
  );
  const totals = new Map();
  for (const line of chart.lines) {
    for (const [x, size] of line.points) totals.set(x, (totals.get(x) ?? 0) + size);
  }
  const below = new Map();
  const points = [];
  for (const line of lines) {
    const group = drawn("g", { class: `series c${line.colour}`, "data-series": line.name });
    for (const value of line.points) {
      const from = below.get(value[0]) ?? 0;
      const to = from + value[1] / totals.get(value[0]);
      below.set(value[0], to);
      const start = left(value[0]) + (width * (1 - BAR_ROOM)) / 2;
      const point = boxed(line, value, start, start + width * BAR_ROOM, y(to), y(from));
      points.push(point);
      group.append(drawn("path", { d: rectangle(point.box), class: "bar part" }));
    }
    svg.append(group);
  }
  return points;
}

/** A row for every line; blue cells are above 1, orange ones below, their number is inside. */
function drawCells(blank, chart, lines, shared) {
  const { svg, area } = blank;
  const { width, left, ticks } = steps(blank, shared);
  const top = (index) => area.top + index * CELL;
  svg.append(
    axesOf(
      blank,
      ticks,
      lines.map((line, index) => [top(index) + CELL / 2, line.name]),
      chart.x.title,
    ),
  );
  const points = [];
  lines.forEach((line, index) => {
    for (const value of line.points) {
      const point = boxed(
        line,
        value,
        left(value[0]),
        left(value[0]) + width,
        top(index),
        top(index) + CELL,
      );
      points.push({ ...point, y: top(index) + CELL / 2 });
      const cell = drawn("path", { d: rectangle(point.box), class: "cell" });
      const strength = Math.min(Math.abs(Math.log2(value[1])) / 2, 1) * STRONGEST;
      const colour = `var(--c${value[1] >= 1 ? 0 : 1}) ${strength.toFixed(0)}%`;
      cell.style.fill = `color-mix(in srgb, ${colour}, var(--paper))`;
      const text = value[1].toPrecision(2).replace(/e\+.*/, "");
      svg.append(
        cell,
        drawn("text", {
          x: point.x,
          y: top(index) + CELL / 2 + 4,
          class: "inside",
          text: width > 24 ? text : "",
        }),
      );
    }
  });
  return points;
}

function rectangle({ left, right, top, bottom }) {
  const [x0, x1, y0, y1] = [left, right, top, bottom].map((place) => place.toFixed(1));
  return `M${x0} ${y0}H${x1}V${y1}H${x0}Z`;
}
