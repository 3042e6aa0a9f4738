// Ticks and limits of axes, by the rules of reports/axes.py.

const DECIMAL_STEPS = [
  [1],
  [1, 3],
  [1, 2, 5],
  [1, 1.5, 2, 3, 5, 7],
  [1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8],
];
const MIN_FACTOR = 3;
const MAX_TICKS = 8;

/** Ends of a logarithmic axis around the values, never so tight that noise looks large. */
function logLimits(values, margin = 0.06) {
  const positive = values.filter((value) => value > 0);
  if (!positive.length) return [1, 10];
  let low = Math.log(Math.min(...positive));
  let high = Math.log(Math.max(...positive));
  const lacking = Math.max(Math.log(MIN_FACTOR) - (high - low), 0);
  low -= lacking / 2;
  high += lacking / 2;
  const pad = margin * (high - low);
  return [Math.exp(low - pad), Math.exp(high + pad)];
}

function decimalTicks(low, high, most = MAX_TICKS) {
  let ticks = [];
  for (const factors of DECIMAL_STEPS) {
    ticks = ticksWithin(low, high, 10, factors);
    if (ticks.length >= 5) break;
  }
  return thinned(ticks, most);
}

function binaryTicks(low, high, most = MAX_TICKS - 1) {
  const ticks = ticksWithin(low, high, 2, [1]);
  return ticks.length > 2 ? thinned(ticks, most) : ticksWithin(low, high, 2, [1, 1.5]);
}

/** The measured lengths; of more than `most`, those furthest apart. */
function lengthTicks(lengths, most = MAX_TICKS) {
  const ordered = distinct(lengths).sort((a, b) => a - b);
  if (ordered.length < 2) return ordered;
  const apart = Math.log(ordered[ordered.length - 1] / ordered[0]) / most;
  const kept = [ordered[ordered.length - 1]];
  for (const length of ordered.slice(0, -1).reverse()) {
    if (Math.log(kept[kept.length - 1] / length) >= Math.max(apart, Math.log(1.3))) {
      kept.push(length);
    }
  }
  return kept.reverse();
}

/** A function from values to places along a logarithmic axis. */
function logScale([low, high], [from, to]) {
  const factor = (to - from) / Math.log(high / low);
  return (value) => from + Math.log(value / low) * factor;
}

function linearScale([low, high], [from, to]) {
  const factor = (to - from) / (high - low);
  return (value) => from + (value - low) * factor;
}

function ticksWithin(low, high, base, factors) {
  const first = Math.floor(Math.log(low) / Math.log(base));
  const last = Math.ceil(Math.log(high) / Math.log(base));
  const ticks = [];
  for (let power = first; power <= last; power += 1) {
    for (const factor of factors) {
      const tick = factor * base ** power;
      if (tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9)) ticks.push(tick);
    }
  }
  return ticks;
}

function thinned(ticks, most) {
  const step = Math.max(Math.ceil(ticks.length / most), 1);
  return ticks.filter((_, index) => index % step === 0);
}

/** Four to eight round steps from 0 to the top. */
function linearTicks(top) {
  const power = 10 ** Math.floor(Math.log10(top));
  const step = [0.1, 0.2, 0.25, 0.5, 1, 2]
    .map((part) => part * power)
    .find((size) => top / size <= 6);
  return Array.from({ length: Math.floor(top / step) + 1 }, (_, index) => index * step);
}
