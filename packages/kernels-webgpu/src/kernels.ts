/** The WGSL kernels of this backend: one row an op. Its shader has the op's path, the host side lies beside it. */
import { continualRetroactive } from "./attention/continual-retroactive.js";
import { continualSingle } from "./attention/continual-single.js";
import { decode } from "./attention/decode.js";
import { decodeAnchor } from "./attention/decode-anchor.js";
import { decodeSparse } from "./attention/decode-sparse.js";
import { hashScores } from "./attention/hash-scores.js";
import { indexScores } from "./attention/index-scores.js";
import { keyHashes } from "./attention/key-hashes.js";
import { merge } from "./attention/merge.js";
import { pageScores } from "./attention/page-scores.js";
import { pageStats } from "./attention/page-stats.js";
import { prefill } from "./attention/prefill.js";
import { rope } from "./attention/rope.js";
import { select } from "./attention/select.js";
import { append } from "./kv-cache/append.js";
import { compact } from "./kv-cache/compact.js";
import { logprob } from "./logits/logprob.js";
import { embedding } from "./model/embedding.js";
import { linear } from "./model/linear.js";
import { rmsNorm } from "./model/rms-norm.js";
import { swiglu } from "./model/swiglu.js";
import { align } from "./moe/align.js";
import { combine } from "./moe/combine.js";
import { groupedFfn } from "./moe/grouped-ffn.js";
import { route } from "./moe/route.js";
import type { ProgramOf } from "./program.js";
import { scan } from "./search/scan.js";

export const kernels: Readonly<Record<string, ProgramOf>> = {
  "attention/continual-retroactive": continualRetroactive,
  "attention/continual-single": continualSingle,
  "attention/decode": decode,
  "attention/decode-anchor": decodeAnchor,
  "attention/decode-sparse": decodeSparse,
  "attention/hash-scores": hashScores,
  "attention/index-scores": indexScores,
  "attention/key-hashes": keyHashes,
  "attention/merge": merge,
  "attention/page-scores": pageScores,
  "attention/page-stats": pageStats,
  "attention/prefill": prefill,
  "attention/rope": rope,
  "attention/select": select,
  "kv-cache/append": append,
  "kv-cache/compact": compact,
  "logits/logprob": logprob,
  "model/embedding": embedding,
  "model/linear": linear,
  "model/rms-norm": rmsNorm,
  "model/swiglu": swiglu,
  "moe/align": align,
  "moe/combine": combine,
  "moe/grouped-ffn": groupedFfn,
  "moe/route": route,
  "search/scan": scan,
};
