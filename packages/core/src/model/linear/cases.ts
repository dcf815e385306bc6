import { type DType, dtypes, type HostArray, rowLength } from "../../dtype.js";
import type { AnyVariant } from "../../op/define.js";
import type { BenchCase, Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changing, withTensors } from "../../testing/changed-call.js";
import { storedValues } from "../../testing/stored.js";
import type { LinearAxes, LinearTensors } from "./reference.js";

const inputs = ({ axes, variant, random }: InputRequest): Tensors => {
  const { tokens, inDim, outDim } = axes as LinearAxes;
  return {
    x: random.values(tokens * inDim, () => random.normal()),
    weight: storedValues(
      variant.weight as DType,
      random.values(outDim * inDim, () => random.normal()),
      inDim,
    ),
    ...(variant.bias ? { bias: random.values(outDim, () => 4 * random.normal()) } : {}),
    ...(variant.residual ? { residual: random.values(tokens * outDim, () => 4 * random.normal()) } : {}),
  };
};

/** A NaN in one token, an infinity in another; the largest vectors are those whose length is no multiple of anything. */
const special = (request: InputRequest): Tensors => {
  const made = inputs(request) as unknown as LinearTensors;
  const { inDim } = request.axes as LinearAxes;
  made.x[inDim - 1] = Number.NaN;
  made.x[2 * inDim - 1] = Number.POSITIVE_INFINITY;
  return made as unknown as Tensors;
};

/** The same in weights of 16 and 32 bits, whose other vectors stay finite where they have no 0 to meet it. */
const infinite = (request: InputRequest): Tensors => {
  const made = special(request) as unknown as LinearTensors;
  const bits = { f32: 0x7f800000, f16: 0x7c00, bf16: 0x7f80, q8_0: undefined }[request.variant.weight as "f32" | "f16" | "bf16" | "q8_0"];
  if (bits !== undefined) (request.variant.weight === "f32" ? new Uint32Array(made.weight.buffer) : (made.weight as Uint16Array))[5] = bits;
  return made as unknown as Tensors;
};

const sizes = (tokens: number, inDim: number, outDim: number): LinearAxes => ({ tokens, inDim, outDim });
/** Each case in a third of the variants, if its vectors are whole blocks. */
const spread = (cases: readonly Case[]): Case[] =>
  cases.map((test, n) => ({
    ...test,
    variants: ({ weight }: AnyVariant, i) => (i + n) % 3 === 0 && (test.axes.inDim as number) % dtypes[weight as DType].blockElements === 0,
  }));
const of = (name: string, axes: LinearAxes, extra: Partial<Case> = {}): Case => ({
  name,
  axes,
  inputs,
  seeds: 1,
  ...extra,
});

export const cases: OpCases = {
  cases: spread([
    ...[1, 2, 3, 4, 5, 6, 7, 13].map((tokens) => of(`${tokens} tokens`, sizes(tokens, 64, 37))),
    ...[1, 3, 7, 9, 17, 33].map((inDim) => of(`vectors of ${inDim}`, sizes(inDim % 2 ? 1 : 5, inDim, 21))),
    ...[1, 3, 7, 9, 17, 33].map((inDim) => of(`many vectors of ${inDim}`, sizes(9, inDim, 18))),
    ...[1, 3, 8, 16, 31].map((outDim) => of(`results of ${outDim}`, sizes(8, 32, outDim))),
    of("one token, long rows", sizes(1, 544, 11)),
    of("long rows", sizes(7, 672, 19)),
    of("many rows", sizes(1, 32, 700)),
    of("several tasks", sizes(30, 96, 160)),
    of("no tokens", sizes(0, 32, 8)),
    of("fewer tokens at run time", sizes(9, 64, 20), { live: { tokens: 2 } }),
    of("special values", sizes(3, 32, 9), { inputs: special }),
    of("special values in many vectors", sizes(8, 32, 9), { inputs: special }),
    ...[256, 257, 288].map((inDim) => of(`many long vectors of ${inDim}`, sizes(9, inDim, 70))),
    of("many long vectors, few results", sizes(70, 272, 9)),
    of("many longer vectors", sizes(9, 544, 36)),
    of("special values in many long vectors", sizes(9, 288, 40), { inputs: special }),
    of("infinite weights", sizes(9, 288, 20), { inputs: infinite }),
  ]),
  mutants: [
    changing("weights off by 1 %", "no result depends on the weights", (call) =>
      withTensors(call, { x: tensorsOf(call).x.map((v) => v * 1.01) }),
    ),
    changing("last component dropped", "the last components weigh nothing", (call) => {
      const { tokens, inDim } = call.axes as LinearAxes;
      const x = tensorsOf(call).x.slice();
      for (let t = 0; t < tokens; t++) x[(t + 1) * inDim - 1] = 0;
      return withTensors(call, { x });
    }),
    changing("first row read for the last", "the rows are equal", (call) => {
      const { inDim, outDim } = call.axes as LinearAxes;
      const pitch = rowLength(call.variant.weight as DType, inDim);
      const weight = tensorsOf(call).weight.slice();
      weight.copyWithin((outDim - 1) * pitch, 0, pitch);
      return withTensors(call, { weight });
    }),
    changing("two tokens swapped", "there are no two tokens that differ", (call) => {
      const { tokens, inDim } = call.axes as LinearAxes;
      if (tokens < 2) return call;
      const x = tensorsOf(call).x.slice();
      const first = x.slice(0, inDim);
      x.copyWithin(0, inDim, 2 * inDim);
      x.set(first, inDim);
      return withTensors(call, { x });
    }),
    {
      ...changing("bias forgotten", "there is no bias that shows", (call) => withTensors(call, { bias: undefined })),
      variants: ({ bias }) => bias === true,
    },
    {
      ...changing("residual of the first token for all", "tokens have equal residuals, or none", (call) => {
        const { tokens, outDim } = call.axes as LinearAxes;
        const residual = tensorsOf(call).residual?.slice();
        for (let t = 1; t < tokens; t++) residual?.copyWithin(t * outDim, 0, outDim);
        return withTensors(call, { residual });
      }),
      variants: ({ residual }) => residual === true,
    },
    {
      ...changing("scale of the first block for all", "there is one block only", (call) => {
        const { blockBytes } = dtypes.q8_0;
        const weight = tensorsOf(call).weight.slice() as Uint8Array;
        for (let at = blockBytes; at < weight.length; at += blockBytes) weight.copyWithin(at, 0, 2);
        return withTensors(call, { weight });
      }),
      variants: ({ weight }) => weight === "q8_0",
    },
  ],
  laws: [
    {
      name: "a token gives the same bits wherever it stands among the others",
      axes: sizes(9, 96, 40),
      async check(run, request) {
        const { tokens, inDim, outDim } = request.axes as LinearAxes;
        const given = inputs(request) as unknown as LinearTensors;
        const turned = new Float32Array(given.x.length);
        for (let t = 0; t < tokens; t++) turned.set(given.x.subarray(t * inDim, (t + 1) * inDim), ((t + 4) % tokens) * inDim);
        // The residual stays where it is: then only the products are compared.
        if (given.residual) given.residual.fill(0.5);
        const { out: a } = await run(request.axes, request.variant, given as unknown as Tensors);
        const { out: b } = await run(request.axes, request.variant, { ...given, x: turned } as unknown as Tensors);
        for (let t = 0; t < tokens; t++)
          for (let o = 0; o < outDim; o++) {
            const [one, other] = [a?.[t * outDim + o], b?.[((t + 4) % tokens) * outDim + o]];
            if (!Object.is(one, other)) return `token ${t}, component ${o}: ${one}, then ${other}`;
          }
        return undefined;
      },
    },
  ],
  bench: [
    bench("1 token, 2048 x 2048", 1, 2048, true),
    bench("1 token, 4096 x 14336", 1, 4096, false, 14336),
    bench("64 tokens, 2048 x 2048", 64, 2048, false),
  ],
};

const tensorsOf = (call: { tensors: unknown }): LinearTensors => call.tensors as LinearTensors;

function bench(name: string, tokens: number, inDim: number, calibrate: boolean, outDim = inDim): BenchCase {
  return {
    name,
    calibrate,
    axes: sizes(tokens, inDim, outDim),
    variants: (["f32", "f16", "q8_0"] as const).map((weight) => ({ weight, bias: false, residual: false })),
    inputs: ({ axes, variant, random }) => {
      const dtype = variant.weight as DType;
      // A few rows over and over: quick to make, and as slow to read as others.
      const pattern = storedValues(
        dtype,
        random.values(61 * inDim, () => 2 * random.uniform() - 1),
        inDim,
      );
      const weight = new dtypes[dtype].storage(rowLength(dtype, inDim) * outDim) as Float32Array;
      for (let at = 0; at < weight.length; at += pattern.length)
        weight.set((pattern as Float32Array).subarray(0, Math.min(pattern.length, weight.length - at)), at);
      return { x: random.values((axes as LinearAxes).tokens * inDim, () => random.normal()), weight };
    },
    // The first token and the first rows.
    sample: (whole, given) => {
      const { x, weight } = given as unknown as LinearTensors;
      const rows = Math.min(outDim, 256);
      return {
        axes: { ...whole, tokens: 1, outDim: rows },
        inputs: { x: x.slice(0, inDim), weight: weight.slice(0, (weight.length / outDim) * rows) as HostArray },
        pick: ({ out }) => ({ out: (out as Float32Array).subarray(0, rows) }),
      };
    },
  };
}
