import { type DType, rowLength } from "../../dtype.js";
import type { ReferenceCall } from "../../op/define.js";
import type { Mutant } from "../../testing/case.js";
import { changing, shows, withTensors } from "./mutants.js";
import { attend, type DecodeAxes, type DecodeTensors, visibleTokens } from "./reference.js";

/** Kernels that treat slopes and masks wrongly. */
export const biasMutants: readonly Mutant[] = [
  {
    ...changing("slopes forgotten", "nothing depends on them", (call) => withTensors(call, { slopes: undefined })),
    variants: ({ slopes }) => slopes === true,
  },
  {
    ...changing("slopes added, not subtracted", "nothing depends on them", (call) =>
      withTensors(call, { slopes: tensorsOf(call).slopes?.map((slope) => -slope) }),
    ),
    variants: ({ slopes }) => slopes === true,
  },
  {
    name: "distances from the length, not from the last token",
    variants: ({ slopes }) => slopes === true,
    run: (call, op) => fartherByOne(call, op.reference),
    blind: (evidence) =>
      shows(evidence, (call) => fartherByOne(call, evidence.op.reference)) ? undefined : "no sequence has tokens that are seen",
  },
  {
    ...changing("mask forgotten", "it hides nothing that weighs anything", (call) => withTensors(call, { mask: everythingSeen(call) })),
    variants: ({ mask }) => mask !== false,
  },
  {
    ...changing("mask of another head", "all heads have one mask", (call) => {
      const { mask } = tensorsOf(call);
      const { batch, maskHeads } = call.axes as DecodeAxes;
      const row = (mask as Float32Array).length / batch / maskHeads;
      return withTensors(call, {
        mask: (mask as Float32Array).map((_, i, whole) => {
          const [b, head] = [Math.floor(i / row / maskHeads), Math.floor(i / row) % maskHeads];
          return whole[(b * maskHeads + ((head + 1) % maskHeads)) * row + (i % row)] as number;
        }),
      });
    }),
    variants: ({ mask }) => mask !== false,
  },
  {
    ...changing("mask before the cap", "there is no cap, or nothing near it", maskedBeforeCap),
    variants: ({ mask }) => mask !== false,
  },
  {
    ...changing("mask one token early", "no neighbours differ", (call) => withTensors(call, { mask: moved(call) })),
    variants: ({ mask }) => mask !== false,
  },
];

const tensorsOf = (call: ReferenceCall): DecodeTensors => call.tensors as DecodeTensors;

/** All logits less by a head's slope: its sink is more by as much, and what comes out less. */
function fartherByOne(call: ReferenceCall, reference: (call: ReferenceCall) => void): void {
  const { sinks, slopes, lse } = tensorsOf(call);
  const { batch, queryHeads } = call.axes as DecodeAxes;
  const slope = slopes as Float32Array;
  reference(withTensors(call, { sinks: sinks?.map((sink, h) => sink + (slope[h] as number)) }));
  for (let row = 0; row < batch * queryHeads; row++) lse[row] = (lse[row] as number) - (slope[row % queryHeads] as number);
}

function everythingSeen(call: ReferenceCall): Float32Array | Uint32Array {
  const { mask } = tensorsOf(call);
  return mask instanceof Float32Array ? mask.map(() => 0) : (mask as Uint32Array).map(() => 0xffffffff);
}

/** The entry of the next token for each. */
function moved(call: ReferenceCall): Float32Array | Uint32Array {
  const { mask } = tensorsOf(call);
  if (mask instanceof Float32Array) return mask.map((_, i) => (Number.isNaN(mask[i + 1] ?? 0) ? 0 : (mask[i + 1] ?? 0)));
  const bits = mask as Uint32Array;
  return bits.map((word, i) => (word >>> 1) | (((bits[i + 1] ?? 0) & 1) << 31));
}

/** What a mask would add if it came before the cap: cap(x + mask) - cap(x), which is another mask of numbers. */
function maskedBeforeCap(call: ReferenceCall): ReferenceCall {
  const { batch, queryHeads, kvHeads, maskHeads, maxPages, pageSize, valueDim } = call.axes as DecodeAxes;
  const cap = call.scalars.softCap as number;
  if (!(cap > 0)) return call;
  const given = tensorsOf(call).mask as Float32Array | Uint32Array;
  const width = rowLength(call.variant.mask as DType, maxPages * pageSize);
  const added = (row: number, t: number): number =>
    given instanceof Float32Array
      ? (given[row * width + t] as number)
      : ((given[row * width + (t >> 5)] as number) >>> (t & 31)) & 1
        ? 0
        : Number.NEGATIVE_INFINITY;
  const scratch = { out: new Float32Array(batch * queryHeads * valueDim), lse: new Float32Array(batch * queryHeads) };
  const bare = {
    ...withTensors(call, { ...scratch, slopes: undefined, mask: undefined }),
    scalars: { ...call.scalars, softCap: 0, window: 0 },
    magnitude: undefined,
    fail() {},
  };
  const seen = visibleTokens(bare);
  const mask = new Float32Array(batch * queryHeads * maxPages * pageSize);
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < queryHeads; h++) {
      const tokens = seen[b] as (typeof seen)[number];
      const { logits } = attend(bare, b, h, Math.floor((h * kvHeads) / queryHeads), tokens);
      for (const [i, x] of logits.entries()) {
        const t = tokens.tokens[i] as number;
        const early = cap * Math.tanh((x + added(b * maskHeads + (maskHeads === 1 ? 0 : h), t)) / cap);
        mask[(b * queryHeads + h) * maxPages * pageSize + t] = early - cap * Math.tanh(x / cap);
      }
    }
  return {
    ...withTensors(call, { mask }),
    axes: { ...call.axes, maskHeads: queryHeads },
    variant: { ...call.variant, mask: "f32" },
  };
}
