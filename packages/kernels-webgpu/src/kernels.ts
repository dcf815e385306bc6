/** The WGSL kernels of this backend: one row an op. Its shader has the op's path, the host side lies beside it. */
import { decode } from "./attention/decode.js";
import { merge } from "./attention/merge.js";
import { combine } from "./moe/combine.js";
import { groupedFfn } from "./moe/grouped-ffn.js";
import type { ProgramOf } from "./program.js";
import { scan } from "./search/scan.js";

export const kernels: Readonly<Record<string, ProgramOf>> = {
  "attention/decode": decode,
  "attention/merge": merge,
  "moe/combine": combine,
  "moe/grouped-ffn": groupedFfn,
  "search/scan": scan,
};
