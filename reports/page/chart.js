// One panel of a quantity: lines over the sequence length, with bands and markers of failures.

const FAILURE_ROW = 15;

/** panel: { quantity, cases, label, limits, lengths, crossings } */
function drawQuantity(host, panel) {
  const blank = blankPanel(host, panel.label);
  const { svg, area } = blank;
  const failed = failureRows(panel.cases);
  const room = failed.length
    ? (1 + Math.max(...failed.map(({ row }) => row))) * FAILURE_ROW + 4
    : 0;
  const atTop = panel.quantity.is_worse_higher;
  const y = logScale(panel.limits, [
    area.bottom - (atTop ? 0 : room),
    area.top + (atTop ? room : 0),
  ]);
  const x = lengthScale(panel.lengths, area);
  const [low, high] = panel.limits;
  const ticks = (panel.quantity.format === "memory" ? binaryTicks : decimalTicks)(low, high);
  svg.append(
    axesOf(
      blank,
      lengthTicks(panel.lengths, mostTicks(blank)).map((tick) => [x(tick), format.tokens(tick)]),
      ticks.map((tick) => [y(tick), trimmed(format[panel.quantity.format](tick))]),
      "sequence length (tokens)",
    ),
  );
  if (panel.quantity.has_anchor) svg.append(anchorLine(panel, x, y, area));
  const shifts = dodges(panel, area);
  const points = [];
  for (const line of distinct(panel.cases.map((record) => record.line))) {
    const own = panel.cases.filter((record) => record.line === line);
    const place = (record) => x(record.seq_len) + (shifts.get(line) ?? 0);
    svg.append(lineOf(series[line], own, panel.quantity, place, y, points));
  }
  for (const { record, row } of failed) {
    const step = (row + 0.6) * FAILURE_ROW;
    const at = {
      ...reached(record),
      x: x(record.seq_len) + (shifts.get(record.line) ?? 0),
      y: atTop ? area.top + step : area.bottom - step,
    };
    points.push(at);
    svg.append(
      drawn("text", {
        x: at.x,
        y: at.y + 4,
        class: `sign c${series[record.line].colour}`,
        text: FAILURE_SIGNS[record.status],
        "data-status": record.status,
      }),
    );
  }
  listen(blank, points, ({ record }) => caseLines(record, series[record.line], panel.quantity));
}

/** What arrow keys and the tooltip need of a case. */
function reached(record) {
  return { record, line: record.line, step: record.seq_len };
}

/** A place for every length; a single one is in the middle. */
function lengthScale(lengths, area) {
  const low = Math.min(...lengths);
  const high = Math.max(...lengths);
  if (low === high) return () => (area.left + area.right) / 2;
  return logScale([low, high], [area.left + 16, area.right - 16]);
}

/** With a single length, series stand side by side. */
function dodges(panel, area) {
  const lines = distinct(panel.cases.map((record) => record.line));
  if (panel.lengths.length !== 1) return new Map();
  const step = Math.min((area.right - area.left - 40) / lines.length, 34);
  return new Map(lines.map((line, index) => [line, (index - (lines.length - 1) / 2) * step]));
}

/** Failed cases with the row to put them in: one row per series that fails at a length. */
function failureRows(shown) {
  const taken = new Map();
  return shown
    .filter((record) => record.status in FAILURE_SIGNS)
    .map((record) => {
      const row = taken.get(record.seq_len) ?? 0;
      taken.set(record.seq_len, row + 1);
      return { record, row };
    });
}

/** The anchor at 1, and on it where series overtake it, with intervals. */
function anchorLine(panel, x, y, area) {
  const group = drawn("g", { class: "anchor" });
  group.append(drawn("path", { d: `M${area.left} ${y(1)}H${area.right}` }));
  for (const crossing of panel.crossings) {
    const at = x(crossing.seq_len);
    const line = crossing.look;
    const ends = [crossing.lo, crossing.hi].map((end) => (end === null ? at : x(end)));
    group.append(
      drawn(
        "g",
        { class: `crossing c${line.colour}` },
        drawn("title", { text: crossingText(crossing) }),
        drawn("path", { d: `M${ends[0]} ${y(1)}H${ends[1]}`, class: "extent" }),
        drawn("path", { d: `M${at} ${y(1) - 9}V${y(1) + 9}`, class: "tick" }),
      ),
    );
  }
  return group;
}

/** A line through the squarest canvases with its band; other canvases are faint markers. */
function lineOf(line, own, quantity, place, y, points) {
  const group = drawn("g", { class: `series c${line.colour}`, "data-series": line.name });
  const known = own.filter((record) => record[`${quantity.name}:value`] !== null);
  const at = (record) => ({
    ...reached(record),
    x: place(record),
    y: y(record[`${quantity.name}:value`]),
  });
  const pieces = unbroken(
    own.filter((record) => record.is_squarest),
    quantity,
  );
  for (const piece of pieces) {
    group.append(
      drawn("path", { d: bandPath(piece, quantity, place, y), class: "band" }),
      drawn("path", {
        d: `M${piece.map((record) => `${place(record)} ${at(record).y}`).join("L")}`,
        class: "line",
        "stroke-dasharray": dashes(line),
      }),
    );
  }
  for (const record of known) {
    const point = at(record);
    points.push(point);
    group.append(
      marker(line.marker, record.is_squarest ? 4.2 : 2.8, {
        transform: `translate(${point.x.toFixed(1)} ${point.y.toFixed(1)})`,
        class: pointClass(record, quantity),
      }),
    );
  }
  return group;
}

/** Hollow where there are too few samples to judge anything from. */
function pointClass(record, quantity) {
  const hollow = record[`${quantity.name}:is_sure`] === false ? " hollow" : "";
  return (record.is_squarest ? "point" : "point faint") + hollow;
}

/** Runs of neighbouring lengths that have a value: a line breaks where a case has none.
 * Cases come in the order of their lengths. */
function unbroken(own, quantity) {
  const pieces = [[]];
  for (const record of own) {
    if (record[`${quantity.name}:value`] !== null) pieces[pieces.length - 1].push(record);
    else pieces.push([]);
  }
  return pieces.filter((piece) => piece.length);
}

function bandPath(piece, quantity, place, y) {
  const end = (record, name) =>
    y(record[`${quantity.name}:${name}`] ?? record[`${quantity.name}:value`]);
  const upper = piece.map((record) => `${place(record)} ${end(record, "hi")}`);
  const lower = piece.map((record) => `${place(record)} ${end(record, "lo")}`).reverse();
  if (piece.length > 1) return `M${[...upper, ...lower].join("L")}Z`;
  return `M${upper[0]}L${lower[0]}`;
}
