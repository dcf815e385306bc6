/** Lists that come from elsewhere: an indexer, a file, another program. */
import { describe, HotsetError, ShapeError } from "../errors.js";

export interface ListChecks {
  /** [batch] Tokens of each sequence. */
  readonly lengths: Int32Array;
  /** Tokens of an entry. */
  readonly granularity: number;
  /** Lists of a sequence: 1, or one for each KV or query head. */
  readonly lists: number;
}

/**
 * Whether lists [batch, lists, k] are what LayerReuse and other users of lists take for granted: each ascending, without
 * repeats, inside its sequence, and -1 only behind its entries. `attention/decode-sparse` itself takes entries in any order,
 * and counts one that stands twice twice. Throws ShapeError, and HotsetError with code `index` that names the first entry
 * that is wrong.
 */
export function checkLists(selected: Int32Array, { lengths, granularity, lists }: ListChecks): void {
  const rows = lengths.length * lists;
  if (!Number.isInteger(granularity) || granularity < 1)
    throw new ShapeError({ where: "checkLists: granularity", expected: "a whole number of at least 1", received: describe(granularity) });
  if (!Number.isInteger(lists) || lists < 1 || (rows === 0 ? selected.length > 0 : selected.length % rows !== 0))
    throw new ShapeError({
      where: "checkLists",
      expected: `${lengths.length} sequences of ${lists} lists, all as long`,
      received: `${selected.length} entries`,
    });
  const k = selected.length / Math.max(1, rows);
  for (let row = 0; row < rows; row++) {
    const sequence = Math.floor(row / lists);
    const granules = Math.ceil((lengths[sequence] as number) / granularity);
    let last = -1;
    for (let i = 0; i < k; i++) {
      const entry = selected[row * k + i] as number;
      const wrong = (expected: string): HotsetError =>
        new HotsetError("index", {
          where: `list ${row % lists} of sequence ${sequence}: entry ${i}`,
          expected,
          received: `${entry}`,
        });
      if (entry === -1) {
        const next = selected.subarray(row * k + i, (row + 1) * k).findIndex((one) => one !== -1);
        if (next >= 0) throw wrong(`a granule: entry ${i + next} is one, and -1 stands behind all of them`);
        break;
      }
      if (entry < 0 || entry >= granules) throw wrong(`a granule below ${granules}: ${lengths[sequence]} tokens by ${granularity}`);
      if (entry === last) throw wrong(`another granule than entry ${i - 1}: each is listed once`);
      if (entry < last) throw wrong(`a granule above ${last}, that of entry ${i - 1}: lists are ascending`);
      last = entry;
    }
  }
}
