import type { AnyVariant } from "../../op/define.js";
import type { BenchCase, Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changing, withTensors, wrongly } from "../../testing/changed-call.js";
import { spread } from "../../testing/spread.js";
import { benchCache, cache, type Lengths } from "../decode/inputs.js";
import type { DecodeAxes } from "../decode/reference.js";
import type { PrefillAxes, PrefillTensors } from "./reference.js";

/** Queries and tokens of each sequence; `tokens` of the axes may be more than their sum. */
type Shape = readonly (readonly [queries: number, tokens: number])[];

const made =
  (shape: Shape, wide = 1) =>
  (request: InputRequest): Tensors => {
    const { tokens, queryHeads, headDim } = request.axes as PrefillAxes;
    const lengths: Lengths = () => shape.map(([, length]) => length);
    const stored = cache(lengths, wide)(request) as Record<string, Float32Array>;
    const queryOffsets = Int32Array.from({ length: shape.length + 1 }, (_, b) => shape.slice(0, b).reduce((sum, [n]) => sum + n, 0));
    return { ...stored, queries: request.random.values(tokens * queryHeads * headDim, () => wide * request.random.normal()), queryOffsets };
  };

interface Heads {
  heads?: [query: number, kv: number];
  dim?: number | [key: number, value: number];
  page?: number;
  spare?: number;
}
function of(
  name: string,
  shape: Shape,
  { heads = [4, 2], dim = 16, page = 8, spare = 0 }: Heads = {},
  extra: Partial<Case> & { wide?: number } = {},
): Case {
  const [headDim, valueDim] = typeof dim === "number" ? [dim, dim] : dim;
  const longest = Math.max(1, ...shape.map(([, tokens]) => tokens));
  const maxPages = Math.ceil(longest / page);
  const axes: PrefillAxes = {
    tokens: shape.reduce((sum, [n]) => sum + n, 0) + spare,
    batch: shape.length,
    queryHeads: heads[0],
    kvHeads: heads[1],
    headDim,
    valueDim,
    pages: shape.length * maxPages + 2,
    pageSize: page,
    maxPages,
  };
  const { wide, ...rest } = extra;
  return { name, axes, inputs: made(shape, wide), seeds: 1, ...rest };
}

const changed =
  (inputs: Case["inputs"], change: (tensors: PrefillTensors, axes: PrefillAxes) => void): Case["inputs"] =>
  (request) => {
    const tensors = inputs(request);
    change(tensors as unknown as PrefillTensors, request.axes as PrefillAxes);
    return tensors;
  };

/** A NaN in a query; keys that make logits -Inf; a last value of infinity, which only the last query sees. */
const special = changed(
  made([
    [3, 9],
    [4, 6],
    [5, 7],
  ]),
  (tensors, { queryHeads, headDim, valueDim, maxPages, kvHeads, pageSize }) => {
    const { queries, keyPages, valuePages, pageTable } = tensors;
    queries[0] = Number.NaN;
    const slot = (b: number, t: number): number =>
      (pageTable[b * maxPages + Math.floor(t / pageSize)] as number) * kvHeads * pageSize + (t % pageSize);
    for (let row = 3 * queryHeads; row < 7 * queryHeads; row++) queries[row * headDim] = 1;
    for (const t of [0, 1, 2]) keyPages[slot(1, t) * headDim] = Number.NEGATIVE_INFINITY;
    valuePages[slot(2, 6) * valueDim] = Number.POSITIVE_INFINITY;
  },
);

const isF32 = ({ keyPages }: AnyVariant): boolean => keyPages === "f32";
const tensorsOf = (call: { tensors: unknown }): PrefillTensors => call.tensors as PrefillTensors;

export const cases: OpCases = {
  cases: spread(
    [
      ...[1, 7, 13, 64, 80].map((dim) =>
        of(
          `heads of ${dim}`,
          [
            [5, 11],
            [3, 3],
          ],
          { dim, page: 4 },
        ),
      ),
      of("values wider than keys", [[6, 20]], { dim: [12, 37] }),
      of("keys wider than values", [[6, 20]], { dim: [40, 9] }),
      ...(
        [
          [1, 1],
          [3, 3],
          [6, 2],
          [7, 1],
        ] as const
      ).map(([query, kv]) =>
        of(
          `${query} query heads, ${kv} KV heads`,
          [
            [9, 21],
            [2, 5],
          ],
          { heads: [query, kv] },
        ),
      ),
      ...[1, 3, 64].map((page) =>
        of(
          `pages of ${page}`,
          [
            [17, 40],
            [4, 66],
          ],
          { page, dim: 8 },
        ),
      ),
      of("a prompt without past", [[70, 70]], { dim: 8, heads: [2, 1] }),
      of(
        "tokens around a tile",
        [
          [3, 15],
          [3, 16],
          [3, 17],
          [3, 31],
          [3, 33],
          [3, 63],
          [3, 65],
        ],
        { dim: 8, heads: [2, 1] },
      ),
      of("a long past", [[3, 300]], { dim: 8, heads: [2, 1], page: 16 }),
      of(
        "more queries than tokens",
        [
          [7, 3],
          [4, 0],
        ],
        {},
      ),
      of(
        "sequences without queries",
        [
          [0, 5],
          [4, 9],
          [0, 0],
        ],
        {},
      ),
      of(
        "rows of no sequence",
        [
          [3, 9],
          [2, 4],
        ],
        { spare: 3 },
      ),
      of("no queries", [[0, 4]], {}),
      of("no sequences", [], { spare: 2 }),
      of(
        "fewer sequences at run time",
        [
          [3, 9],
          [2, 4],
          [5, 8],
        ],
        {},
        { live: { batch: 2, tokens: 6 } },
      ),
      of("a window", [[20, 50]], { dim: 8 }, { scalars: { window: 13 } }),
      of("a window of one", [[6, 9]], {}, { scalars: { window: 1 } }),
      of("soft cap", [[6, 20]], {}, { scalars: { softCap: 2.5 }, wide: 2 }),
      of("another scale", [[6, 20]], {}, { scalars: { scale: -0.7 } }),
      of("one token outweighs all", [[5, 40]], {}, { wide: 30 }),
      of(
        "everything at once",
        [
          [9, 50],
          [3, 3],
          [11, 29],
        ],
        { heads: [6, 2], dim: [10, 14], page: 5, spare: 1 },
        { scalars: { window: 20, softCap: 5, scale: 0.3 } },
      ),
      of(
        "special values",
        [
          [3, 9],
          [4, 6],
          [5, 7],
        ],
        { heads: [2, 1], dim: 8, page: 4 },
        { variants: isF32, inputs: special },
      ),
      of(
        "pages that do not exist",
        [
          [4, 20],
          [3, 9],
        ],
        { page: 4 },
        {
          inputs: changed(
            made([
              [4, 20],
              [3, 9],
            ]),
            ({ pageTable }, { pages, maxPages }) => {
              pageTable[1] = pages;
              pageTable[maxPages] = -7;
            },
          ),
        },
      ),
      of(
        "lengths out of range",
        [
          [4, 8],
          [3, 5],
          [2, 5],
        ],
        {},
        {
          inputs: changed(
            made([
              [4, 8],
              [3, 5],
              [2, 5],
            ]),
            ({ lengths }) => {
              lengths[0] = 9;
              lengths[2] = -1;
            },
          ),
        },
      ),
      of(
        "offsets out of order",
        [
          [4, 8],
          [3, 5],
          [2, 5],
        ],
        {},
        {
          inputs: changed(
            made([
              [4, 8],
              [3, 5],
              [2, 5],
            ]),
            ({ queryOffsets }) => {
              queryOffsets[1] = 8;
            },
          ),
        },
      ),
      of(
        "offsets past the end",
        [
          [4, 8],
          [3, 5],
        ],
        {},
        {
          inputs: changed(
            made([
              [4, 8],
              [3, 5],
            ]),
            ({ queryOffsets }) => {
              queryOffsets[2] = 8;
            },
          ),
        },
      ),
      of("heads wider than a tile", [[3, 40]], { dim: [140, 133], heads: [2, 1] }),
      of("more query heads than rows of a tile", [[3, 9]], { dim: 5, heads: [66, 1] }),
    ],
    2,
  ),
  mutants: [
    changing("scale off by 1 %", "no answer depends on the scale", (call) => ({
      ...call,
      scalars: { ...call.scalars, scale: (call.scalars.scale as number) * 1.01 },
    })),
    wrongly("the token itself not seen", "no query has a token that shows", (call, reference) => {
      const { lengths } = tensorsOf(call);
      reference(withTensors(call, { lengths: lengths.map((length) => Math.max(0, length - 1)) }));
    }),
    wrongly("aligned top-left", "past and present are one", (call, reference) => {
      const { lengths, queryOffsets } = tensorsOf(call);
      const { batch } = call.axes as PrefillAxes;
      const cut = lengths.map((length, b) =>
        b < batch ? Math.min(length, (queryOffsets[b + 1] as number) - (queryOffsets[b] as number)) : length,
      );
      reference(withTensors(call, { lengths: cut.map((n, b) => (n < 0 ? (lengths[b] as number) : n)) }));
    }),
    changing("a query head swapped", "no two heads of a token differ", (call) => {
      const { tokens, queryHeads, headDim } = call.axes as PrefillAxes;
      if (queryHeads < 2) return call;
      const queries = tensorsOf(call).queries.slice();
      for (let t = 0; t < tokens; t++) {
        const at = t * queryHeads * headDim;
        const first = queries.slice(at, at + headDim);
        queries.copyWithin(at, at + headDim, at + 2 * headDim);
        queries.set(first, at + headDim);
      }
      return withTensors(call, { queries });
    }),
    changing("two tokens swapped", "there are no two tokens that differ", (call) => {
      const { tokens, queryHeads, headDim } = call.axes as PrefillAxes;
      if (tokens < 2) return call;
      const width = queryHeads * headDim;
      const queries = tensorsOf(call).queries.slice();
      const first = queries.slice(0, width);
      queries.copyWithin(0, width, 2 * width);
      queries.set(first, width);
      return withTensors(call, { queries });
    }),
    changing("page table ignored", "the pages lie in order, or nothing is read from them", (call) => {
      const { batch, pages, maxPages } = call.axes as PrefillAxes;
      return withTensors(call, { pageTable: Int32Array.from({ length: batch * maxPages }, (_, i) => i % pages) });
    }),
    changing("window forgotten", "the window cuts nothing off", (call) => ({ ...call, scalars: { ...call.scalars, window: 0 } })),
    changing("window one token longer", "the window cuts nothing off, or what weighs less than the roundings allowed", (call) => ({
      ...call,
      scalars: { ...call.scalars, window: call.scalars.window ? (call.scalars.window as number) + 1 : 0 },
    })),
    changing("soft cap forgotten", "no logit comes near the cap", (call) => ({ ...call, scalars: { ...call.scalars, softCap: 0 } })),
    {
      ...changing("values scaled as keys", "nothing depends on the values' scales", (call) =>
        withTensors(call, { valueScale: tensorsOf(call).keyScale }),
      ),
      variants: ({ keyPages }) => keyPages === "i8",
    },
  ],
  laws: [
    {
      name: "a token gives the same bits alone as with the others, wherever the pages lie",
      axes: { tokens: 11, batch: 1, queryHeads: 6, kvHeads: 2, headDim: 24, valueDim: 20, pages: 16, pageSize: 8, maxPages: 12 },
      async check(run, request) {
        const axes = request.axes as PrefillAxes;
        const { tokens, queryHeads, headDim, valueDim } = axes;
        const given = made([[tokens, 90]])(request) as unknown as PrefillTensors;
        const { out: together } = await run(axes, request.variant, given as unknown as Tensors);
        for (let t = 0; t < tokens; t++) {
          const width = queryHeads * headDim;
          const { out: alone } = await run({ ...axes, tokens: 1 }, request.variant, {
            ...given,
            queries: given.queries.slice(t * width, (t + 1) * width),
            queryOffsets: Int32Array.of(0, 1),
            lengths: Int32Array.of(90 - tokens + t + 1),
          } as unknown as Tensors);
          for (let i = 0; i < queryHeads * valueDim; i++) {
            const [one, other] = [together?.[t * queryHeads * valueDim + i], alone?.[i]];
            if (!Object.is(one, other)) return `token ${t}: out[${i}] is ${other} alone and ${one} with the others`;
          }
        }
        return undefined;
      },
    },
  ],
  bench: [
    bench("32/8 heads x 128, 256 tokens", 256, 256, true),
    bench("32/8 heads x 128, 1024 tokens", 1024, 1024, false),
    bench("32/8 heads x 128, 64 after 4096", 64, 4096, false),
  ],
};

function bench(name: string, tokens: number, length: number, calibrate: boolean): BenchCase {
  const axes: PrefillAxes = {
    tokens,
    batch: 1,
    queryHeads: 32,
    kvHeads: 8,
    headDim: 128,
    valueDim: 128,
    pages: length / 16,
    pageSize: 16,
    maxPages: length / 16,
  };
  return {
    name,
    axes,
    calibrate,
    variants: (["f32", "f16"] as const).map((keyPages) => ({ keyPages })),
    inputs: (request) => {
      const stored = benchCache({ ...request, axes: { ...(axes as unknown as DecodeAxes), batch: 1 } }) as Record<string, Float32Array>;
      return {
        ...stored,
        queries: request.random.values(tokens * 32 * 128, () => request.random.normal()),
        queryOffsets: Int32Array.of(0, tokens),
      };
    },
    // The last token.
    sample: (whole, given) => ({
      axes: { ...whole, tokens: 1 },
      inputs: { ...given, queries: (given.queries as Float32Array).slice(-32 * 128), queryOffsets: Int32Array.of(0, 1) },
      pick: ({ out, lse }) => ({ out: (out as Float32Array).subarray(-32 * 128), lse: (lse as Float32Array).subarray(-32) }),
    }),
  };
}
