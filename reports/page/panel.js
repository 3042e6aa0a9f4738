// What every chart is made of: its area and axes, and how its points are reached.

const REACH = { mouse: 48, touch: 80 };
const NARROW = 420;
const HOW_TO_WALK =
  "Arrow keys walk along a line and between lines; the same numbers are in the table below.";

/** An empty drawing of the width of its host, with the area inside its axes. */
function blankPanel(host, label, fixedHeight = null) {
  const width = host.clientWidth;
  const height = fixedHeight ?? (width < NARROW ? 300 : 340);
  const svg = drawn("svg", {
    viewBox: `0 0 ${width} ${height}`,
    width,
    height,
    tabindex: 0,
    role: "application",
    "aria-roledescription": "chart",
    "aria-label": `${label} ${HOW_TO_WALK}`,
  });
  host.append(svg);
  return {
    svg,
    host,
    width,
    height,
    area: { left: 62, right: width - 14, top: 10, bottom: height - 44 },
  };
}

/** Grid and texts of both axes: ticks are pairs of a place and a text. */
function axesOf({ area }, xTicks, yTicks, xTitle) {
  const group = drawn("g", { class: "axes", "aria-hidden": "true" });
  for (const [place, text] of yTicks) {
    group.append(
      drawn("path", { d: `M${area.left} ${place}H${area.right}`, class: "grid" }),
      drawn("text", { x: area.left - 8, y: place + 4, class: "end", text }),
    );
  }
  for (const [place, text] of xTicks) {
    group.append(
      drawn("path", { d: `M${place} ${area.top}V${area.bottom}`, class: "grid" }),
      drawn("text", { x: place, y: area.bottom + 18, class: "middle", text }),
    );
  }
  group.append(
    drawn("path", { d: `M${area.left} ${area.top}V${area.bottom}H${area.right}`, class: "frame" }),
    drawn("text", {
      x: (area.left + area.right) / 2,
      y: area.bottom + 36,
      class: "middle title",
      text: xTitle,
    }),
  );
  return group;
}

/** How many texts fit along the lower axis. */
function mostTicks({ area }) {
  return Math.min(Math.max(Math.floor((area.right - area.left) / 44), 2), MAX_TICKS);
}

/**
 * Pointer, touch and keys choose a point, which is then told.
 *
 * points: { x, y, line, step, box } in the order of reading; line and step are what arrow keys walk
 * along; box, if any, is the area that belongs to the point.
 * tell: the content of the tooltip of a point.
 */
function listen({ svg, host, width }, points, tell) {
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
    const scale = frame.width / width;
    const below = frame.top - host.getBoundingClientRect().top;
    tooltip.show(host, { x: point.x * scale, y: below + point.y * scale }, tell(point));
  };
  const pick = (event) => {
    const frame = svg.getBoundingClientRect();
    const scale = width / frame.width;
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

/** The point whose box is under the pointer, else the nearest within reach. */
function nearest(points, px, py, reach) {
  let best = null;
  let least = reach;
  for (const point of points) {
    const { box } = point;
    if (box && px >= box.left && px <= box.right && py >= box.top && py <= box.bottom) return point;
    const distance = box ? Infinity : Math.hypot(point.x - px, point.y - py);
    if (distance < least) [best, least] = [point, distance];
  }
  return best;
}

/** Left and right walk along a line, up and down between the lines at a step. */
function nextPoint(points, chosen, key) {
  const move = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[key];
  if (!move || !points.length) return null;
  if (!chosen) return points[0];
  const isAlong = key === "ArrowLeft" || key === "ArrowRight";
  const name = isAlong ? "line" : "step";
  const group = points.filter((point) => point[name] === chosen[name]);
  group.sort((a, b) => (isAlong ? a.x - b.x : a.y - b.y));
  return group[group.indexOf(chosen) + move] ?? null;
}
