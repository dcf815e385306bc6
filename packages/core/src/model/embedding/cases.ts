import { type DType, dtypes, rowLength } from "../../dtype.js";
import type { BenchCase, Case, InputRequest, OpCases, Tensors } from "../../testing/case.js";
import { changing, withTensors } from "../../testing/changed-call.js";
import { storedValues } from "../../testing/stored.js";
import type { EmbeddingAxes, EmbeddingTensors } from "./reference.js";

const inputs = ({ axes, variant, random }: InputRequest): Tensors => {
  const { tokens, vocab, dim } = axes as EmbeddingAxes;
  const values = random.values(vocab * dim, () => random.normal());
  return { ids: Int32Array.from({ length: tokens }, () => random.below(vocab)), table: storedValues(variant.table as DType, values, dim) };
};

const badIds = (request: InputRequest): Tensors => {
  const made = inputs(request) as unknown as EmbeddingTensors;
  const { vocab } = request.axes as EmbeddingAxes;
  made.ids[1] = vocab;
  made.ids[2] = -1;
  made.ids[4] = 2 ** 31 - 1;
  return made as unknown as Tensors;
};

/** Subnormal, infinite and not a number, as each dtype stores them. */
const special = (request: InputRequest): Tensors => {
  const made = inputs(request) as unknown as EmbeddingTensors;
  const { dim, tokens } = request.axes as EmbeddingAxes;
  const bits = {
    f32: [0x00000001, 0x7f800000, 0xff800000, 0x7fc00000],
    f16: [0x0001, 0x7c00, 0xfc00, 0x7e00],
    bf16: [0x0001, 0x7f80, 0xff80, 0x7fc0],
  };
  const dtype = request.variant.table as "f32" | "f16" | "bf16";
  const { table } = made;
  const words = dtype === "f32" ? new Uint32Array(table.buffer as ArrayBuffer) : (table as Uint16Array);
  for (let row = 0; row < 4; row++) words[row * dim + row] = bits[dtype][row] as number;
  for (let t = 0; t < tokens; t++) made.ids[t] = t % 4;
  return made as unknown as Tensors;
};

const sizes = (tokens: number, vocab: number, dim: number): EmbeddingAxes => ({ tokens, vocab, dim });
const of = (name: string, axes: EmbeddingAxes, extra: Partial<Case> = {}): Case => ({
  name,
  axes,
  inputs,
  seeds: 1,
  variants: (variant) => axes.dim % dtypes[variant.table as DType].blockElements === 0,
  ...extra,
});
const tensorsOf = (call: { tensors: unknown }): EmbeddingTensors => call.tensors as EmbeddingTensors;

export const cases: OpCases = {
  cases: [
    ...[1, 3, 8, 17, 33].map((dim) => of(`rows of ${dim}`, sizes(5, 7, dim))),
    ...[32, 64, 96, 160].map((dim) => of(`rows of ${dim}`, sizes(6, 11, dim))),
    of("one row", sizes(3, 1, 32)),
    of("many tokens", sizes(300, 40, 32)),
    of("no tokens", sizes(0, 5, 32)),
    of("fewer tokens at run time", sizes(9, 5, 64), { live: { tokens: 4 } }),
    of("ids outside the table", sizes(7, 6, 32), { inputs: badIds }),
    of("special values", sizes(8, 6, 37), { inputs: special }),
  ],
  mutants: [
    changing("the next row", "there is one row only", (call) => {
      const { vocab } = call.axes as EmbeddingAxes;
      return withTensors(call, { ids: tensorsOf(call).ids.map((id) => (id >= 0 && id < vocab ? (id + 1) % vocab : id)) });
    }),
    changing("ids cut to two bits", "no id is that large", (call) => withTensors(call, { ids: tensorsOf(call).ids.map((id) => id & 3) })),
    changing("last component of a row as its first", "the rows are equal there", (call) => {
      const { vocab, dim } = call.axes as EmbeddingAxes;
      const pitch = rowLength(call.variant.table as DType, dim);
      const table = tensorsOf(call).table.slice();
      const first = call.variant.table === "q8_0" ? 2 : 0;
      for (let row = 0; row < vocab; row++) table.copyWithin((row + 1) * pitch - 1, row * pitch + first, row * pitch + first + 1);
      return withTensors(call, { table });
    }),
  ],
  laws: [],
  bench: [bench("64 tokens of 32000 x 2048", 64, 32000, 2048)],
};

function bench(name: string, tokens: number, vocab: number, dim: number): BenchCase {
  return {
    name,
    calibrate: true,
    axes: sizes(tokens, vocab, dim),
    variants: (["f32", "f16", "q8_0"] as const).map((table) => ({ table })),
    inputs: ({ variant, random }) => {
      const dtype = variant.table as DType;
      const table = new dtypes[dtype].storage(rowLength(dtype, dim) * vocab);
      const row = storedValues(
        dtype,
        random.values(dim, () => random.normal()),
        dim,
      );
      for (let at = 0; at < table.length; at += row.length) (table as Float32Array).set(row as Float32Array, at);
      return { ids: Int32Array.from({ length: tokens }, () => random.below(vocab)), table };
    },
  };
}
