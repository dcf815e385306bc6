/** The drawings of the attention page, as SVG. Colours are the page's variables, so they follow light and dark. */
import type { attention } from "@hotset/core";

export const escaped = (text: string): string =>
  text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;").replaceAll('"', "&quot;");

const svg = (width: number, height: number, label: string, content: string): string =>
  `<svg viewBox="0 0 ${round(width)} ${round(height)}" width="${round(width)}" height="${round(height)}" role="img" aria-label="${escaped(label)}">${content}</svg>`;
const round = (value: number): number => Math.round(value * 100) / 100;
const text = (x: number, y: number, content: string | number, more = ""): string =>
  `<text x="${round(x)}" y="${round(y)}" ${more}>${content}</text>`;

/** Rows make lists, columns take them; the darker, the better. Cells of the policy are framed. */
export function heatMap(similarity: attention.Similarity, sources: readonly number[], label: string): string {
  const { layers } = similarity;
  const size = Math.max(7, Math.min(44, 380 / layers));
  const [left, top] = [44, 34];
  const every = Math.max(1, Math.ceil(20 / size));
  const cells: string[] = [];
  for (let i = 0; i < layers; i++)
    for (let j = i; j < layers; j++) {
      const value = i === j ? 1 : similarity.at(i, j);
      const [x, y] = [left + j * size, top + i * size];
      const what = i === j ? `layer ${i}, its own list` : `layer ${j} with the list of ${i}: ${(100 * value).toFixed(1)} %`;
      // From a half up, where lists differ: below, a cell is as pale as it gets.
      const strength = i === j ? 0 : Math.max(0.06, Math.min(1, (value - 0.5) / 0.5));
      const fill = i === j ? 'class="rule" stroke-dasharray="2 2"' : `class="cell" fill-opacity="${round(strength)}"`;
      cells.push(
        `<rect x="${round(x + 0.5)}" y="${round(y + 0.5)}" width="${round(size - 1)}" height="${round(size - 1)}" ${fill}><title>${what}</title></rect>`,
      );
      if (size >= 22 && i !== j)
        cells.push(
          text(x + size / 2, y + size / 2 + 4, (100 * value).toFixed(0), `text-anchor="middle"${strength > 0.55 ? ' class="on"' : ""}`),
        );
    }
  for (const [layer, source] of sources.entries())
    if (source !== layer)
      cells.push(
        `<rect x="${round(left + layer * size + 0.5)}" y="${round(top + source * size + 0.5)}" width="${round(size - 1)}" height="${round(size - 1)}" class="frame"${size < 20 ? ' style="stroke-width:1"' : ""}/>`,
      );
  for (let layer = 0; layer < layers; layer += every) {
    cells.push(text(left + (layer + 0.5) * size, top - 6, layer, 'text-anchor="middle" class="soft"'));
    cells.push(text(left - 6, top + (layer + 0.5) * size + 4, layer, 'text-anchor="end" class="soft"'));
  }
  const [end, bottom] = [left + layers * size, top + layers * size];
  cells.push(text(left + (layers * size) / 2, 11, "layer that takes the list", 'text-anchor="middle" class="soft"'));
  cells.push(
    text(
      10,
      top + (layers * size) / 2,
      "made by",
      `text-anchor="middle" class="soft" transform="rotate(-90 10 ${round(top + (layers * size) / 2)})"`,
    ),
  );
  // The scale.
  const scale = [50, 60, 70, 80, 90, 100].map((value, i) => {
    const x = left + i * 30;
    const opacity = Math.max(0.06, (value - 50) / 50);
    return `<rect x="${x}" y="${round(bottom + 12)}" width="29" height="10" class="cell" fill-opacity="${opacity}"/>${text(x + 14.5, bottom + 36, value === 50 ? "&le;50" : value, 'text-anchor="middle" class="soft"')}`;
  });
  return svg(
    Math.max(end, left + 184) + 4,
    bottom + 42,
    `${label} of ${layers} layers with each other's lists`,
    cells.join("") + scale.join(""),
  );
}

/** The layers in a row: filled where a layer looks at everything, with arcs from lists to those who take them. */
export function strip({ layers }: attention.LayerPolicy, kept: readonly number[]): string {
  const size = Math.max(14, Math.min(56, 800 / layers.length));
  const height = Math.min(40, size);
  const [left, top] = [8, 26];
  const under = top + height;
  let deepest = 0;
  const parts = layers.map((rule, layer) => {
    const x = left + layer * size;
    const own = rule.kind !== "reuse";
    const letter =
      rule.kind === "full"
        ? "all"
        : rule.kind === "reuse"
          ? `${(100 * (kept[layer] as number)).toFixed(0)}`
          : rule.attends
            ? "own"
            : "list";
    const what =
      rule.kind === "full"
        ? "looks at everything"
        : rule.kind === "reuse"
          ? `reads the list of layer ${rule.source}, which holds ${(100 * (kept[layer] as number)).toFixed(1)} % of its weight`
          : rule.attends
            ? "makes a list and reads that"
            : "looks at everything and makes a list";
    let arc = "";
    if (rule.kind === "reuse") {
      const [from, to] = [left + (rule.source + 0.5) * size, x + size / 2];
      const depth = Math.min(70, 10 + (to - from) * 0.28);
      deepest = Math.max(deepest, depth);
      arc = `<path class="arc" d="M${round(from)} ${under + 3}C${round(from)} ${round(under + depth * 1.3)} ${round(to)} ${round(under + depth * 1.3)} ${round(to)} ${under + 3}"/>`;
    }
    const fill = own ? (rule.kind === "full" ? 'class="cell"' : 'class="second"') : 'class="rule"';
    const label = size >= 30 ? text(x + size / 2, top + height / 2 + 4, letter, `text-anchor="middle"${own ? ' class="on"' : ""}`) : "";
    const number = size >= 20 || layer % 2 === 0 ? text(x + size / 2, top - 8, layer, 'text-anchor="middle" class="soft"') : "";
    return `<g><title>Layer ${layer} ${what}</title><rect x="${round(x + 1)}" y="${top}" width="${round(size - 2)}" height="${round(height)}" rx="4" ${fill}/>${label}</g>${number}${arc}`;
  });
  const bottom = under + deepest + 16;
  const keys: [string, string][] = [
    ['class="cell"', "looks at everything"],
    ['class="second"', "and makes a list"],
    ['class="rule"', size >= 30 ? "reads a list (% of its weight that this holds)" : "reads a list"],
  ];
  let at = left;
  const legend = keys.map(([fill, label]) => {
    const x = at;
    at += 30 + label.length * 6.6;
    return `<rect x="${round(x)}" y="${round(bottom)}" width="14" height="14" rx="3" ${fill}/>${text(x + 20, bottom + 11, label, 'class="soft"')}`;
  });
  return svg(Math.max(left * 2 + layers.length * size, at), bottom + 20, "What each layer does", parts.join("") + legend.join(""));
}

/** A bar for each layer, from 0 up to the next round number; `format` for its value. */
export function bars(values: readonly number[], label: string, format: (value: number) => string): string {
  const size = Math.max(10, Math.min(56, 780 / values.length));
  const most = roundUp(Math.max(...values));
  const [left, top, height] = [56, 18, 130];
  const parts = [0, most / 2, most].map((value) => {
    const y = top + height * (1 - value / most);
    return `<path class="rule" d="M${left} ${round(y)}H${round(left + values.length * size)}"/>${text(left - 6, y + 4, format(value), 'text-anchor="end" class="soft"')}`;
  });
  for (const [layer, value] of values.entries()) {
    const x = left + layer * size;
    const tall = (height * value) / most;
    parts.push(
      `<rect x="${round(x + size * 0.15)}" y="${round(top + height - tall)}" width="${round(size * 0.7)}" height="${round(tall)}" class="cell"><title>layer ${layer}: ${format(value)}</title></rect>`,
    );
    if (size >= 44) parts.push(text(x + size / 2, top + height - tall - 4, format(value), 'text-anchor="middle"'));
    if (size >= 18 || layer % 4 === 0) parts.push(text(x + size / 2, top + height + 16, layer, 'text-anchor="middle" class="soft"'));
  }
  parts.push(text(left + (values.length * size) / 2, top + height + 32, "layer", 'text-anchor="middle" class="soft"'));
  return svg(left + values.length * size + 8, top + height + 38, label, parts.join(""));
}

/** The next of 1, 2, 5, 10, ... times a power of ten. */
function roundUp(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return (([1, 2, 5, 10].find((step) => step * power >= value) ?? 10) as number) * power;
}

/** What is read against what is kept. */
export function frontier(
  points: readonly { readonly lists: number; readonly cost: number; readonly kept: number }[],
  chosen: { readonly cost: number; readonly kept: number },
): string {
  const [left, top, width, height] = [52, 14, 560, 220];
  const all = [...points, chosen];
  const low = Math.min(0.9, Math.floor(Math.min(...all.map(({ kept }) => kept)) * 20) / 20);
  const most = Math.max(1, Math.ceil(Math.max(...all.map(({ cost }) => cost)) * 10) / 10);
  const x = (cost: number): number => left + (width * cost) / most;
  const y = (kept: number): number => top + height * (1 - (kept - low) / (1 - low));
  const parts: string[] = [];
  for (let i = 0; i <= 4; i++) {
    const [kept, cost] = [low + ((1 - low) * i) / 4, (most * i) / 4];
    parts.push(`<path class="rule" d="M${left} ${round(y(kept))}H${left + width}"/>`);
    parts.push(text(left - 6, y(kept) + 4, `${(100 * kept).toFixed(low > 0.85 ? 1 : 0)} %`, 'text-anchor="end" class="soft"'));
    parts.push(text(x(cost), top + height + 18, `${(100 * cost).toFixed(0)} %`, 'text-anchor="middle" class="soft"'));
  }
  parts.push(
    text(
      left + width / 2,
      top + height + 36,
      "read by a generated token, of what dense attention reads",
      'text-anchor="middle" class="soft"',
    ),
  );
  parts.push(text(left + 8, top + 14, "attention mass kept", 'class="soft"'));
  parts.push(
    `<path class="path" d="${points.map(({ cost, kept }, i) => `${i ? "L" : "M"}${round(x(cost))} ${round(y(kept))}`).join("")}"/>`,
  );
  const every = Math.ceil(points.length / 10);
  for (const { lists, cost, kept } of points) {
    const what = `${lists} ${lists === 1 ? "list" : "lists"}: reads ${(100 * cost).toFixed(1)} %, keeps ${(100 * kept).toFixed(1)} %`;
    parts.push(`<circle cx="${round(x(cost))}" cy="${round(y(kept))}" r="4" class="cell"><title>${what}</title></circle>`);
    if (lists === 1 || lists % every === 0) parts.push(text(x(cost) + 7, y(kept) + (y(kept) > top + height - 20 ? -5 : 15), lists));
  }
  parts.push(
    `<circle cx="${round(x(chosen.cost))}" cy="${round(y(chosen.kept))}" r="8" class="frame"><title>the policy above</title></circle>`,
  );
  return svg(left + width + 28, top + height + 44, "What policies read and keep", parts.join(""));
}
