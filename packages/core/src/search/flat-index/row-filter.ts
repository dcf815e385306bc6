import type { FlatIndex } from "./flat-index.js";

/** The rows that a search may return, of one version of an index: made by `index.filter`. */
export class RowFilter {
  /** @internal */
  readonly index: FlatIndex;
  /** @internal */
  readonly version: number;
  /** @internal bits [rows] */
  readonly bits: Uint32Array;
  /** Rows that pass. */
  readonly size: number;

  constructor(index: FlatIndex, version: number, bits: Uint32Array, size: number) {
    this.index = index;
    this.version = version;
    this.bits = bits;
    this.size = size;
  }
}
