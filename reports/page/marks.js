// Markers, by the names that reports/theme.py gives them, and the signs of failures.

const MARKERS = {
  o: (r) => `M${-r} 0A${r} ${r} 0 1 0 ${r} 0A${r} ${r} 0 1 0 ${-r} 0Z`,
  s: (r) =>
    polygon(
      [
        [-1, -1],
        [1, -1],
        [1, 1],
        [-1, 1],
      ],
      r * 0.88,
    ),
  "^": (r) =>
    polygon(
      [
        [0, -1.15],
        [1.1, 0.85],
        [-1.1, 0.85],
      ],
      r,
    ),
  v: (r) =>
    polygon(
      [
        [0, 1.15],
        [1.1, -0.85],
        [-1.1, -0.85],
      ],
      r,
    ),
  "<": (r) =>
    polygon(
      [
        [-1.15, 0],
        [0.85, 1.1],
        [0.85, -1.1],
      ],
      r,
    ),
  ">": (r) =>
    polygon(
      [
        [1.15, 0],
        [-0.85, 1.1],
        [-0.85, -1.1],
      ],
      r,
    ),
  D: (r) =>
    polygon(
      [
        [0, -1.25],
        [1.25, 0],
        [0, 1.25],
        [-1.25, 0],
      ],
      r,
    ),
  P: (r) =>
    polygon(
      [
        [-0.4, -1.2],
        [0.4, -1.2],
        [0.4, -0.4],
        [1.2, -0.4],
        [1.2, 0.4],
        [0.4, 0.4],
        [0.4, 1.2],
        [-0.4, 1.2],
        [-0.4, 0.4],
        [-1.2, 0.4],
        [-1.2, -0.4],
        [-0.4, -0.4],
      ],
      r,
    ),
  p: (r) => polygon(regular(5), r * 1.15),
  h: (r) => polygon(regular(6), r * 1.15),
};

const FAILURE_SIGNS = {
  oom: "×",
  timeout: "T",
  crashed: "*",
  incorrect: "≠",
  fallback: "→",
  failed: "!",
};

function marker(name, radius, attributes) {
  const path = (MARKERS[name] ?? MARKERS.o)(radius);
  return drawn("path", { d: path, ...attributes });
}

/** How a series looks in a legend: a piece of its line with its marker, or of its bar. */
function swatch(line, isBar = false) {
  const parts = isBar
    ? [drawn("path", { d: "M10 1H24V13H10Z", class: "bar" })]
    : [
        drawn("path", { d: "M1 7H33", class: "line", "stroke-dasharray": dashes(line) }),
        marker(line.marker, 4, { transform: "translate(17 7)", class: "point" }),
      ];
  const size = { viewBox: "0 0 34 14", width: 34, height: 14 };
  return drawn("svg", { ...size, "aria-hidden": "true", class: `c${line.colour}` }, ...parts);
}

function dashes(line) {
  return line.dash.length ? line.dash.map((part) => part * 1.8).join(" ") : null;
}

function polygon(corners, radius) {
  return `M${corners.map(([x, y]) => `${x * radius} ${y * radius}`).join("L")}Z`;
}

function regular(corners) {
  return Array.from({ length: corners }, (_, index) => {
    const angle = (2 * Math.PI * index) / corners - Math.PI / 2;
    return [Math.cos(angle), Math.sin(angle)];
  });
}
