/** Routing traces as text: CSV as runtimes dump it, and nested JSON lists. */
import { FormatError } from "../../errors.js";
import { checkIds, checkSequences, idArray, type MoeTrace, shown, traceLimits, wholeNumber } from "./trace.js";

/**
 * CSV with a line of column names, among them `layer` and `expert`, one line per routed expert, in the order of
 * routing. With a `token` column a token is a run of equal values; without one it ends where the layer falls. Every token
 * must use the same number of experts in each layer. `experts`: how many a layer has; default the highest seen plus one.
 * Throws FormatError.
 */
export function moeTraceFromCsv(text: string, { where = "CSV", experts }: { where?: string; experts?: number } = {}): MoeTrace {
  const lines = text.split(/\r?\n/);
  const names = (lines[0] ?? "").split(",").map((name) => name.trim().toLowerCase());
  const [layerColumn, expertColumn, tokenColumn] = ["layer", "expert", "token"].map((name) => names.indexOf(name)) as [
    number,
    number,
    number,
  ];
  if (layerColumn < 0 || expertColumn < 0)
    throw new FormatError({ where, expected: "the columns layer and expert in the first line", received: shown(lines[0]) });
  // [token][layer][expert]
  const rows: number[][][] = [];
  let token: string | undefined;
  let before = Number.POSITIVE_INFINITY;
  for (let i = 1; i < lines.length; i++) {
    const line = lines[i] as string;
    if (line.trim() === "") continue;
    const cells = line.split(",");
    const at = `${where}: line ${i + 1}`;
    if (cells.length !== names.length) throw new FormatError({ where: at, expected: `${names.length} cells`, received: `${cells.length}` });
    const layer = cellNumber(cells[layerColumn], traceLimits.layers - 1, at);
    const expert = cellNumber(cells[expertColumn], traceLimits.experts - 1, at);
    const name = tokenColumn < 0 ? undefined : cells[tokenColumn];
    if (rows.length === 0 || (tokenColumn < 0 ? layer < before : name !== token)) rows.push([]);
    token = name;
    before = layer;
    const layersOfToken = rows[rows.length - 1] as number[][];
    while (layersOfToken.length <= layer) layersOfToken.push([]);
    (layersOfToken[layer] as number[]).push(expert);
  }
  return fromRows(rows, undefined, undefined, experts, "unknown", where);
}

/**
 * A JSON document: routed experts as [tokens][layers][k] lists, or `{ routed, experts?, model?, tokenIds?, sequences? }`
 * with `routed` such a list, `tokenIds [tokens]` and sequences `[{ start, len }]`. Throws FormatError.
 */
export function moeTraceFromJson(text: string, { where = "JSON" }: { where?: string } = {}): MoeTrace {
  let document: unknown;
  try {
    document = JSON.parse(text);
  } catch (cause) {
    throw new FormatError({ where, expected: "JSON", received: (cause as Error).message, cause });
  }
  const parts = (Array.isArray(document) ? { routed: document } : typeof document === "object" ? (document ?? {}) : {}) as Record<
    string,
    unknown
  >;
  if (!Array.isArray(parts.routed))
    throw new FormatError({ where, expected: "lists [tokens][layers][k], bare or as routed", received: shown(document) });
  const experts = parts.experts === undefined ? undefined : wholeNumber(parts.experts, 1, traceLimits.experts, `${where}: experts`);
  const model = typeof parts.model === "string" ? parts.model : "unknown";
  return fromRows(parts.routed, parts.sequences, parts.tokenIds, experts, model, where);
}

function cellNumber(cell: string | undefined, max: number, where: string): number {
  if (cell === undefined || !/^\s*\d{1,9}\s*$/.test(cell))
    throw new FormatError({ where, expected: `a whole number from 0 to ${max}`, received: shown(cell) });
  return wholeNumber(Number(cell), 0, max, where);
}

/** Lists of any origin: each token has the same layers, each layer the same number of experts. */
function fromRows(
  rows: readonly unknown[],
  sequences: unknown,
  tokenIds: unknown,
  expertsOf: number | undefined,
  model: string,
  where: string,
): MoeTrace {
  const list = (value: unknown, length: number | undefined, at: string): readonly unknown[] => {
    if (Array.isArray(value) && value.length > 0 && (length === undefined || value.length === length)) return value;
    const received = Array.isArray(value) ? `${value.length}` : shown(value);
    throw new FormatError({ where: at, expected: length === undefined ? "a list with entries" : `${length} entries, as before`, received });
  };
  if (rows.length === 0) throw new FormatError({ where, expected: "at least one token", received: "none" });
  const layers = list(rows[0], undefined, `${where}: token 0`).length;
  const topK = list((rows[0] as unknown[])[0], undefined, `${where}: token 0, layer 0`).length;
  wholeNumber(layers, 1, traceLimits.layers, `${where}: layers`);
  const flat = new Uint16Array(rows.length * layers * topK);
  let highest = 0;
  rows.forEach((row, t) => {
    list(row, layers, `${where}: token ${t}`).forEach((used, l) => {
      list(used, topK, `${where}: token ${t}, layer ${l}`).forEach((id, k) => {
        const expert = wholeNumber(id, 0, (expertsOf ?? traceLimits.experts) - 1, `${where}: token ${t}, layer ${l}`);
        highest = Math.max(highest, expert);
        flat[(t * layers + l) * topK + k] = expert;
      });
    });
  });
  const experts = expertsOf ?? highest + 1;
  const ids = idArray(experts, flat.length);
  ids.set(flat);
  checkIds({ ids, layers, experts, topK }, where);
  const tokens = rows.length;
  const known =
    tokenIds === undefined
      ? undefined
      : Uint32Array.from(list(tokenIds, tokens, `${where}: tokenIds`), (id, t) =>
          wholeNumber(id, 0, 2 ** 32 - 1, `${where}: tokenIds[${t}]`),
        );
  return {
    model,
    layers,
    experts,
    topK,
    tokens,
    sequences: checkSequences(sequences, tokens, `${where}: sequences`),
    ids,
    ...(known ? { tokenIds: known } : {}),
  };
}
