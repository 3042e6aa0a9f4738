// What a point of a chart says: beside the point, and to screen readers.

const tooltip = {
  box: null,

  /** Show lines of a case beside a place inside the host; `at` is in the host's pixels. */
  show(host, at, content) {
    tooltip.hide();
    tooltip.box = element("div", { class: "tooltip", role: "presentation" }, ...content);
    host.append(tooltip.box);
    const { offsetWidth: width, offsetHeight: height } = tooltip.box;
    const left = Math.min(Math.max(at.x - width / 2, 0), Math.max(host.clientWidth - width, 0));
    const above = at.y - height - 14;
    const isAbove = host.getBoundingClientRect().top + above >= 0;
    tooltip.box.style.left = `${left}px`;
    tooltip.box.style.top = `${isAbove ? above : at.y + 16}px`;
    document.getElementById("spoken").textContent = content.map(spoken).join(". ");
  },

  hide() {
    if (tooltip.box) tooltip.box.remove();
    tooltip.box = null;
  },
};

function spoken(node) {
  return (
    [...node.querySelectorAll("[data-say], dt, dd")].map((part) => part.textContent).join(" ") ||
    node.textContent
  );
}

/** The lines about a case, the chosen quantity first. */
function caseLines(record, line, quantity) {
  const name = element(
    "p",
    { class: "name" },
    swatch(line),
    element("span", { text: line.name, "data-say": "" }),
  );
  const place = `${record.canvas} canvas, ${format.tokens(record.seq_len)} tokens`;
  const found = [name, element("p", { class: "place", text: place })];
  if (record.status !== "ok") {
    const word = data.failures[record.status] ?? record.status;
    found.push(element("p", { text: record.reason ? `${word}: ${record.reason}` : word }));
    return found;
  }
  const order = [quantity, ...quantities.filter((other) => other !== quantity)];
  const list = element("dl");
  for (const shown of order) {
    const text = quantityText(record, shown);
    if (text) {
      const marks = { class: shown === quantity ? "chosen" : null };
      list.append(
        element("dt", { text: shown.title, ...marks }),
        element("dd", { text, ...marks }),
      );
    }
  }
  found.push(list);
  const doubts = record.rows.flatMap((row) => (row.warnings ? [row.warnings] : []));
  const few = record[`${quantity.name}:is_sure`] === false ? ", too few to judge from" : "";
  const samples = record.num_samples ? `${plural(record.num_samples, "sample")}${few}` : "";
  const rounds = record.num_rounds > 1 ? ` in ${record.num_rounds} rounds` : "";
  found.push(element("p", { class: "place", text: samples + rounds }));
  if (doubts.length) {
    found.push(element("p", { class: "doubt", text: `Warning: ${shortened(doubts[0], 110)}` }));
  }
  return found;
}

/** `2.00 ms (1.98 to 2.02)`; empty where unknown. */
function quantityText(record, quantity) {
  const value = record[`${quantity.name}:value`];
  if (value === null) return "";
  const write = format[quantity.format];
  const low = record[`${quantity.name}:lo`];
  const high = record[`${quantity.name}:hi`];
  const unit = quantity.unit ? ` ${quantity.unit}` : "";
  const interval = low === null || high === null ? "" : ` (${write(low)} to ${write(high)})`;
  const mark = record[`${quantity.name}:is_sure`] === false ? data.few_samples.mark : "";
  return `${write(value)}${unit}${mark}${interval}`;
}

function shortened(text, length) {
  return text.length > length ? `${text.slice(0, length - 3)}...` : text;
}
