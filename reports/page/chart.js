// One panel: lines over the sequence length, with bands, markers of failures and tooltips.

const FAILURE_ROW = 15;
const REACH = { mouse: 48, touch: 80 };

/**
 * Draw a panel into a host element.
 *
 * panel: { quantity, cases, label, limits, lengths, crossings, width, height }
 */
function drawPanel(host, panel) {
  const area = { left: 62, right: panel.width - 14, top: 10, bottom: panel.height - 44 };
  const failed = failureRows(panel.cases);
  const room = failed.length ? (1 + Math.max(...failed.map(({ row }) => row))) * FAILURE_ROW + 4 : 0;
  const atTop = panel.quantity.is_worse_higher;
  const y = logScale(panel.limits, [
    area.bottom - (atTop ? 0 : room),
    area.top + (atTop ? room : 0),
  ]);
  const x = lengthScale(panel.lengths, area);
  const svg = drawn("svg", {
    viewBox: `0 0 ${panel.width} ${panel.height}`,
    width: panel.width,
    height: panel.height,
    tabindex: 0,
    role: "application",
    "aria-roledescription": "chart",
    "aria-label": panel.label,
  });
  svg.append(axesOf(panel, x, y, area));
  if (panel.quantity.has_anchor) svg.append(anchorLine(panel, x, y, area));
  const shifts = dodges(panel);
  const points = [];
  for (const line of distinct(panel.cases.map((record) => record.line))) {
    const own = panel.cases.filter((record) => record.line === line);
    const place = (record) => x(record.seq_len) + (shifts.get(line) ?? 0);
    svg.append(lineOf(series[line], own, panel.quantity, place, y, points));
  }
  for (const { record, row } of failed) {
    const step = (row + 0.6) * FAILURE_ROW;
    const at = {
      x: x(record.seq_len) + (shifts.get(record.line) ?? 0),
      y: atTop ? area.top + step : area.bottom - step,
      record,
    };
    points.push(at);
    svg.append(drawn("text", {
      x: at.x,
      y: at.y + 4,
      class: `sign c${series[record.line].colour}`,
      text: FAILURE_SIGNS[record.status],
      "data-status": record.status,
    }));
  }
  host.append(svg);
  listen(host, svg, points, panel);
  return svg;
}

/** A place for every length; a single one is in the middle. */
function lengthScale(lengths, area) {
  const low = Math.min(...lengths);
  const high = Math.max(...lengths);
  if (low === high) return () => (area.left + area.right) / 2;
  return logScale([low, high], [area.left + 16, area.right - 16]);
}

/** With a single length, series stand side by side. */
function dodges(panel) {
  const lines = distinct(panel.cases.map((record) => record.line));
  if (panel.lengths.length !== 1) return new Map();
  const step = Math.min((panel.width - 110) / lines.length, 34);
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

function axesOf(panel, x, y, area) {
  const group = drawn("g", { class: "axes", "aria-hidden": "true" });
  const [low, high] = panel.limits;
  const isBinary = panel.quantity.format === "memory";
  const values = (isBinary ? binaryTicks : decimalTicks)(low, high);
  for (const tick of values) {
    group.append(drawn("path", { d: `M${area.left} ${y(tick)}H${area.right}`, class: "grid" }));
    const text = trimmed(format[panel.quantity.format](tick));
    group.append(drawn("text", { x: area.left - 8, y: y(tick) + 4, class: "end", text }));
  }
  const most = Math.max(Math.floor((area.right - area.left) / 44), 2);
  for (const tick of lengthTicks(panel.lengths, Math.min(most, MAX_TICKS))) {
    group.append(
      drawn("path", { d: `M${x(tick)} ${area.top}V${area.bottom}`, class: "grid" }),
      drawn("text", { x: x(tick), y: area.bottom + 18, class: "middle", text: format.tokens(tick) }),
    );
  }
  group.append(drawn("path", { d: `M${area.left} ${area.top}V${area.bottom}H${area.right}`, class: "frame" }));
  group.append(drawn("text", {
    x: (area.left + area.right) / 2,
    y: area.bottom + 36,
    class: "middle title",
    text: "sequence length (tokens)",
  }));
  return group;
}

/** The anchor at 1, and on it where series overtake it, with intervals. */
function anchorLine(panel, x, y, area) {
  const group = drawn("g", { class: "anchor" });
  group.append(drawn("path", { d: `M${area.left} ${y(1)}H${area.right}` }));
  for (const crossing of panel.crossings) {
    const at = x(crossing.seq_len);
    const line = series[crossing.line];
    const ends = [crossing.lo, crossing.hi].map((end) => (end === null ? at : x(end)));
    group.append(drawn(
      "g",
      { class: `crossing c${line.colour}` },
      drawn("title", { text: crossing.text }),
      drawn("path", { d: `M${ends[0]} ${y(1)}H${ends[1]}`, class: "extent" }),
      drawn("path", { d: `M${at} ${y(1) - 9}V${y(1) + 9}`, class: "tick" }),
    ));
  }
  return group;
}

/** A line through the squarest canvases with its band; other canvases are faint markers. */
function lineOf(line, own, quantity, place, y, points) {
  const group = drawn("g", { class: `series c${line.colour}`, "data-series": line.name });
  const known = own.filter((record) => record[`${quantity.name}:value`] !== null);
  const at = (record) => ({ x: place(record), y: y(record[`${quantity.name}:value`]), record });
  const pieces = unbroken(own.filter((record) => record.is_squarest), quantity);
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
    group.append(marker(line.marker, record.is_squarest ? 4.2 : 2.8, {
      transform: `translate(${point.x.toFixed(1)} ${point.y.toFixed(1)})`,
      class: record.is_squarest ? "point" : "point faint",
    }));
  }
  return group;
}

/** Runs of neighbouring lengths that have a value: a line breaks where a case has none. */
function unbroken(own, quantity) {
  const pieces = [[]];
  for (const record of [...own].sort((a, b) => a.seq_len - b.seq_len)) {
    if (record[`${quantity.name}:value`] !== null) pieces[pieces.length - 1].push(record);
    else pieces.push([]);
  }
  return pieces.filter((piece) => piece.length);
}

function bandPath(piece, quantity, place, y) {
  const end = (record, name) => y(record[`${quantity.name}:${name}`] ?? record[`${quantity.name}:value`]);
  const upper = piece.map((record) => `${place(record)} ${end(record, "hi")}`);
  const lower = piece.map((record) => `${place(record)} ${end(record, "lo")}`).reverse();
  if (piece.length > 1) return `M${[...upper, ...lower].join("L")}Z`;
  return `M${upper[0]}L${lower[0]}`;
}

/** Pointer, touch and keys choose a point, whose case is then told. */
function listen(host, svg, points, panel) {
  const ring = drawn("circle", { r: 8, class: "ring", visibility: "hidden" });
  svg.append(ring);
  let chosen = null;
  const choose = (point) => {
    chosen = point;
    ring.setAttribute("visibility", point ? "visible" : "hidden");
    if (!point) {
      tooltip.hide();
      return;
    }
    ring.setAttribute("cx", point.x);
    ring.setAttribute("cy", point.y);
    const frame = svg.getBoundingClientRect();
    const scale = frame.width / panel.width;
    const below = frame.top - host.getBoundingClientRect().top;
    const at = { x: point.x * scale, y: below + point.y * scale };
    tooltip.show(host, at, caseLines(point.record, series[point.record.line], panel.quantity));
  };
  const pick = (event) => {
    const frame = svg.getBoundingClientRect();
    const scale = panel.width / frame.width;
    const [px, py] = [(event.clientX - frame.left) * scale, (event.clientY - frame.top) * scale];
    const reach = event.pointerType === "touch" ? REACH.touch : REACH.mouse;
    const point = nearest(points, px, py, reach);
    if (point !== chosen) choose(point);
  };
  svg.addEventListener("pointermove", pick);
  svg.addEventListener("pointerdown", pick);
  svg.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && choose(null));
  svg.addEventListener("blur", () => choose(null));
  svg.addEventListener("keydown", (event) => {
    if (event.key === "Escape") choose(null);
    const next = nextPoint(points, chosen, event.key);
    if (next) {
      event.preventDefault();
      choose(next);
    }
  });
}

function nearest(points, px, py, reach) {
  let best = null;
  let least = reach;
  for (const point of points) {
    const distance = Math.hypot(point.x - px, point.y - py);
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}

/** Left and right walk along a series, up and down between series at a length. */
function nextPoint(points, chosen, key) {
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[key];
  if (!step || !points.length) return null;
  if (!chosen) return points[0];
  const isAlong = key === "ArrowLeft" || key === "ArrowRight";
  const group = points.filter((point) => (isAlong
    ? point.record.line === chosen.record.line
    : point.record.seq_len === chosen.record.seq_len));
  group.sort((a, b) => (isAlong ? a.x - b.x : a.y - b.y));
  return group[group.indexOf(chosen) + step] ?? null;
}
