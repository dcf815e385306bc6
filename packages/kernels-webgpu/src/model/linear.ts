/** model/linear: which pass of model/linear.wgsl takes how many tokens, and windows of the matrix's rows and of tokens. */
import { byteLength, type DType, type KernelRequest } from "@hotset/core/backend";
import type { DeviceFacts, Launch, Pass, Program } from "../program.js";
import { rangeOf, tooLong, type Window, windowRows, windowsOf } from "../windows.js";

type Axes = Record<"tokens" | "inDim" | "outDim", number>;

/** Threads that share rows, where tokens are few, and the rows they share. */
const sharing = 32;
const fewRows = 2;
/** Tokens that a weight is read once for, then, at most: their sums stay in registers. */
const mostFewTokens = 4;

export function linear({ axes, variant }: KernelRequest, facts: DeviceFacts): Program | string {
  const { tokens, inDim, outDim } = axes as Axes;
  const dtype = variant.weight as DType;
  const { maxStorageBufferBindingSize: limit, maxComputeWorkgroupsPerDimension: most } = facts;
  const { threads, columns, queries } = facts.tunables;
  if (threads < sharing) return `its rows need ${sharing} threads, and this device is given ${threads}`;
  if (4 * outDim > limit) return tooLong("out", 4 * outDim, limit);
  const rowBytes = byteLength(dtype, [inDim]);
  const rowWindow = windowRows(outDim, [rowBytes], limit);
  if (rowWindow === 0) return tooLong("weight", rowBytes, limit);
  // As square a tile as the threads allow: each has 4 rows and 4 tokens.
  const rowFours = 2 ** Math.floor(Math.log2(threads) / 2);
  const tile = { rows: 4 * rowFours, tokens: 4 * (threads / rowFours) };
  const bound = windowRows(tokens, [4 * inDim, 4 * outDim], limit);
  if (bound === 0) return tooLong("x", 4 * Math.max(inDim, outDim), limit);
  // Windows start on multiples of 64 tokens whatever a token's bytes are.
  const tokenWindow = Math.min(bound, 64 * Math.floor((most * tile.tokens) / 64));

  // Up to twice as many tokens, reading the weights again beats a tile that is mostly empty.
  const fewTokens = Math.min(mostFewTokens, queries);
  const half = dtype === "f16" && facts.features.has("shader-f16");
  const flags = [`values_${dtype}`, ...(half ? ["shader_f16"] : []), ...(inDim % 8 === 0 ? ["eights"] : [])];
  if (variant.bias) flags.push("biased");
  if (variant.residual) flags.push("residual");
  const optional = { ...(variant.bias ? { bias: 3 } : {}), ...(variant.residual ? { residual: 4 } : {}) };
  const pass = (entry: string, own: readonly string[], constants: Readonly<Record<string, number>>): Pass => ({
    pieces: ["gen/params", "lib/values", "lib/fours", "model/linear"],
    flags: [...flags, ...own],
    entry,
    constants: { workgroup_threads: threads, ...constants },
    bindings: { uniforms: 0, x: 1, weight: 2, ...optional, out: 5 },
  });
  const passes: Record<string, Pass> = { one: pass("multiply_few", ["few"], { few_tokens: 1 }) };
  if (tokens > 1) passes.few = pass("multiply_few", ["few"], { few_tokens: fewTokens });
  if (tokens > 2 * fewTokens) passes.many = pass("multiply_many", [], { row_fours: rowFours, columns });

  function launch(rows: Window, some: Window): Launch {
    const name = some.count === 1 ? "one" : some.count <= 2 * fewTokens ? "few" : "many";
    const across = name === "many" ? tile.rows : (threads / sharing) * fewRows;
    const down = name === "many" ? tile.tokens : name === "few" ? fewTokens : 1;
    const results = rangeOf(some, 4 * outDim);
    return {
      pass: name,
      workgroups: [Math.min(most, Math.ceil(rows.count / across)), Math.ceil(some.count / down)],
      words: [rows.first, rows.count, some.count],
      ranges: { x: rangeOf(some, 4 * inDim), weight: rangeOf(rows, rowBytes), residual: results, out: results },
    };
  }

  return {
    name: "rows",
    passes,
    arrange: () => ({
      scratch: {},
      launches: ({ tokens: now }) =>
        windowsOf(outDim, rowWindow).flatMap((rows) => windowsOf(now as number, tokenWindow).map((some) => launch(rows, some))),
    }),
  };
}
