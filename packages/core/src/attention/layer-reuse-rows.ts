/** Rows of a batch for tokens that are decoded together. */
import { describe, HotsetError, ShapeError } from "../errors.js";

export interface SpeculativeSettings {
  /** [sequences, maxPages] The pages of each sequence. */
  readonly pageTable: Int32Array;
  /** [sequences] Tokens of each sequence, those of this step included. */
  readonly lengths: Int32Array;
  /** Rows of a sequence, at most: the token that is known and the drafts behind it. */
  readonly rows: number;
  /** [sequences] Tokens of this step, where a sequence may have fewer: 0 to `rows`. Default: `rows` of each. */
  readonly counts?: Int32Array | undefined;
}

export interface SpeculativeRows {
  /** [sequences * rows, maxPages] */
  readonly pageTable: Int32Array;
  /** [sequences * rows] */
  readonly lengths: Int32Array;
}

/**
 * Speculative decoding as rows of a batch, for the ops of a decode step and for LayerReuse: row r of a sequence is its token
 * r of this step, over the sequence's own pages and the tokens up to itself. So each row sees what it would see alone, and
 * has lists of its own; a row that a sequence does not need has length 0. Keys and values of all rows are appended before.
 *
 * Writes into `into`, where it is given, so that steps bound to its arrays go on with them. A sequence grows by up to `rows`
 * tokens a step: LayerReuse's `tokensPerStep`. Throws ShapeError and HotsetError.
 */
export function speculativeRows({ pageTable, lengths, rows, counts }: SpeculativeSettings, into?: SpeculativeRows): SpeculativeRows {
  const where = "speculativeRows";
  const sequences = lengths.length;
  if (!Number.isInteger(rows) || rows < 1)
    throw new HotsetError("argument", { where, expected: "rows: a whole number of at least 1", received: describe(rows) });
  if (sequences === 0 || pageTable.length % sequences !== 0)
    throw new ShapeError({ where, expected: "a row of pageTable for each length", received: `${pageTable.length} and ${sequences}` });
  if (counts && counts.length !== sequences)
    throw new ShapeError({ where, expected: `${sequences} counts, one for each sequence`, received: `${counts.length}` });
  const pages = pageTable.length / sequences;
  const to = into ?? { pageTable: new Int32Array(sequences * rows * pages), lengths: new Int32Array(sequences * rows) };
  if (to.pageTable.length !== sequences * rows * pages || to.lengths.length !== sequences * rows)
    throw new ShapeError({
      where: `${where}: into`,
      expected: `pageTable [${sequences * rows}, ${pages}] and lengths [${sequences * rows}]`,
      received: `${to.pageTable.length} and ${to.lengths.length} entries`,
    });
  for (let s = 0; s < sequences; s++) {
    const count = counts?.[s] ?? rows;
    const length = lengths[s] as number;
    if (count < 0 || count > rows || count > length)
      throw new HotsetError("argument", {
        where: `${where}: sequence ${s}`,
        expected: `0 to ${rows} tokens of this step, within its length ${length}`,
        received: `${count}`,
      });
    for (let r = 0; r < rows; r++) {
      const row = s * rows + r;
      to.lengths[row] = r < count ? length - count + r + 1 : 0;
      to.pageTable.set(pageTable.subarray(s * pages, (s + 1) * pages), row * pages);
    }
  }
  return to;
}
