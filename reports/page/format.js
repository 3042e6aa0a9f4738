// Numbers as text, to the letter as bench/units.py writes them: a test compares the two.

const NOT_AVAILABLE = "n/a";
const TOKENS_PER_K = 1024;
const DURATIONS_MS = [
  [1e3, "s"],
  [1, "ms"],
  [1e-3, "us"],
  [1e-6, "ns"],
];
const MEMORIES_MIB = [
  [1024 ** 2, "TiB"],
  [1024, "GiB"],
  [1, "MiB"],
  [1 / 1024, "KiB"],
];
const RATES = [
  [1e12, "T"],
  [1e9, "G"],
  [1e6, "M"],
  [1e3, "k"],
  [1, ""],
];

const format = {
  significant(value, digits = 3) {
    if (isMissing(value)) return NOT_AVAILABLE;
    if (value === 0) return "0";
    const [mantissa, power] = rounded(value, digits);
    const exponent = Number(power);
    if (exponent < -4) {
      const sign = power.startsWith("-") ? "-" : "+";
      return `${mantissa}e${sign}${String(Math.abs(exponent)).padStart(2, "0")}`;
    }
    if (exponent >= digits - 1) return grouped(String(wholeEven(value)));
    const decimals = digits - 1 - exponent;
    return grouped(Number(`${mantissa}e${exponent}`).toFixed(decimals));
  },
  duration(value) {
    if (isMissing(value)) return NOT_AVAILABLE;
    const seconds = wholeEven(value / 1e3);
    if (seconds >= 7200) {
      return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
    }
    if (seconds >= 120) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    return scaled(value, DURATIONS_MS);
  },
  memory(value) {
    return isMissing(value) ? NOT_AVAILABLE : scaled(value, MEMORIES_MIB);
  },
  rate(value) {
    return isMissing(value) ? NOT_AVAILABLE : scaled(value, RATES).replace(" ", "");
  },
  ratio(value) {
    return isMissing(value) ? NOT_AVAILABLE : `${format.significant(value)}x`;
  },
  percent(value) {
    return isMissing(value) ? NOT_AVAILABLE : `${fixedEven(100 * value, 1)}%`;
  },
  tokens(value) {
    if (isMissing(value)) return NOT_AVAILABLE;
    for (const [size, suffix] of [
      [TOKENS_PER_K ** 2, "M"],
      [TOKENS_PER_K, "k"],
    ]) {
      if (value >= size) return fixedEven(value / size, 1).replace(/\.0$/, "") + suffix;
    }
    return String(wholeEven(value));
  },
  count(value) {
    return isMissing(value) ? NOT_AVAILABLE : grouped(String(wholeEven(value)));
  },
  text(value) {
    return value === null || value === undefined ? "" : String(value);
  },
};

/** `1 GiB` for `1.00 GiB`: without the zeros that significant digits add. */
function trimmed(text) {
  return text.replace(/(\.\d*?)0+(?!\d)/, "$1").replace(/\.(?!\d)/, "");
}

function plural(number, noun) {
  return `${grouped(String(number))} ${noun}${number === 1 ? "" : "s"}`;
}

function isMissing(value) {
  return typeof value !== "number" || !Number.isFinite(value);
}

function grouped(text) {
  const [whole, decimals] = text.split(".");
  const marked = whole.replace(/\B(?=(\d{3})+$)/g, ",");
  return decimals === undefined ? marked : `${marked}.${decimals}`;
}

/** Mantissa and exponent as text. */
function rounded(value, digits) {
  const [exact, power] = value.toExponential(60).split("e");
  const [whole, fraction] = exact.split(".");
  if (!isTieDown(whole, fraction, digits - 1)) return value.toExponential(digits - 1).split("e");
  return [digits > 1 ? `${whole}.${fraction.slice(0, digits - 1)}` : whole, power];
}

function fixedEven(value, decimals) {
  const [whole, fraction] = value.toFixed(60).split(".");
  if (!isTieDown(whole, fraction, decimals)) return value.toFixed(decimals);
  return decimals ? `${whole}.${fraction.slice(0, decimals)}` : whole;
}

/** Whether a number lies midway after its kept decimals and the even neighbour is the lower one,
 * which Python rounds to; JavaScript rounds such a number up. */
function isTieDown(whole, fraction, decimals) {
  const last = Number((whole + fraction.slice(0, decimals)).slice(-1));
  return /^50*$/.test(fraction.slice(decimals)) && last % 2 === 0;
}

function wholeEven(value) {
  return Number(fixedEven(value, 0));
}

function scaled(value, scales) {
  const fitting = scales.find(
    ([size]) => Math.abs(value) / size >= 0.9995 || (value === 0 && size === 1),
  );
  const [size, unit] = fitting ?? scales[scales.length - 1];
  return `${format.significant(value / size)} ${unit}`;
}
