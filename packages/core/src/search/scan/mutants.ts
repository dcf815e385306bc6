import type { HostArray } from "../../dtype.js";
import type { Op, ReferenceCall } from "../../op/define.js";
import { bitAt } from "../../op/elements.js";
import type { Evidence, Mutant } from "../../testing/case.js";
import type { ScanTensors } from "./reference.js";

type Axes = Record<"batch" | "count" | "dim" | "k", number>;

/** Kernels that are wrong in the ways kernels are. */
export const mutants: readonly Mutant[] = [
  {
    name: "scale off by 1 %",
    run(call, op) {
      op.reference(call);
      const { scores } = call.tensors as ScanTensors;
      for (let i = 0; i < scores.length; i++) scores[i] = (scores[i] as number) * 1.01;
    },
    blind: ({ expected }) =>
      (expected.scores as Float32Array).some((score) => score !== 0 && Number.isFinite(score)) ? undefined : "every score is 0 or infinite",
  },
  {
    name: "last row dropped",
    run: (call, op) => op.reference({ ...call, axes: { ...call.axes, count: Math.max(0, (call.axes.count as number) - 1) } }),
    blind: ({ axes, expected }) =>
      axes.count && (expected.ids as Int32Array).includes((axes.count as number) - 1) ? undefined : "the last row is no result",
  },
  {
    name: "last component dropped",
    run: (call, op) => op.reference(shortened(call)),
    blind: (evidence) =>
      sameResults(rerun(evidence, shortened), evidence.expected) ? "no result depends on the last component" : undefined,
  },
  {
    name: "ties broken the other way",
    exactOnly: true,
    run: reversed,
    blind: ({ expected, axes }) => (hasTies(expected, axes.k as number) ? undefined : "no two results score the same"),
  },
  {
    name: "a query swapped",
    run: (call, op) => op.reference(swapped(call)),
    blind: ({ axes, expected }) => {
      const { batch, k } = axes as Axes;
      if (batch < 2) return "there is only one query";
      const part = (name: "ids" | "scores", q: number): string =>
        (expected[name] as Int32Array | Float32Array).subarray(q * k, (q + 1) * k).join();
      return part("ids", 0) === part("ids", 1) && part("scores", 0) === part("scores", 1)
        ? "both queries have the same results"
        : undefined;
    },
  },
  {
    name: "filter ignored",
    run: (call, op) => op.reference(withTensors(call, { filter: undefined })),
    variants: ({ filter }) => filter === true,
    blind: (evidence) => {
      const { ids } = rerun(evidence, (call) => withTensors(call, { filter: undefined }));
      const allowed = ids.every((id) => id < 0 || bitAt(evidence.inputs.filter as Uint32Array, id));
      return allowed ? "no row that is kept out would be a result" : undefined;
    },
  },
  {
    name: "row scales ignored",
    run: (call, op) => op.reference(withTensors(call, { rowScale: undefined })),
    // Cosine only knows the sign of a scale.
    variants: ({ rows, metric }) => rows === "i8" && metric !== "cos",
    blind: (evidence) =>
      sameResults(
        rerun(evidence, (call) => withTensors(call, { rowScale: undefined })),
        evidence.expected,
      )
        ? "no result depends on a scale"
        : undefined,
  },
  {
    name: "found says k",
    run(call, op) {
      op.reference(call);
      (call.tensors as ScanTensors).found.fill(call.axes.k as number, 0, call.axes.batch as number);
    },
    blind: ({ expected, axes }) =>
      (expected.found as Uint32Array).subarray(0, axes.batch).every((found) => found === axes.k) ? "every query has k results" : undefined,
  },
  {
    name: "NaN taken for 0",
    run: (call, op) => op.reference(withoutNaN(call)),
    blind: (evidence) => {
      if (!(evidence.inputs.queries as Float32Array).some(Number.isNaN)) return "no query has a NaN";
      return sameResults(rerun(evidence, withoutNaN), evidence.expected) ? "no row would match the query without its NaN" : undefined;
    },
  },
];

const withTensors = (call: ReferenceCall, tensors: Record<string, unknown>): ReferenceCall => ({
  ...call,
  tensors: { ...call.tensors, ...tensors },
});

/** What the reference makes of a changed call: for reasons that are about the answer itself. */
function rerun(
  { op, axes, variant, pitch, inputs }: Evidence,
  change: (call: ReferenceCall) => ReferenceCall,
): Pick<ScanTensors, "ids" | "scores" | "found"> {
  const { batch, k } = axes as Axes;
  const outputs = { ids: new Int32Array(batch * k), scores: new Float32Array(batch * k), found: new Uint32Array(batch) };
  op.reference(change({ axes, variant, pitch, scalars: {}, fail() {}, tensors: { ...inputs, ...outputs } }));
  return outputs;
}

/** The expected tensors have room for the plan's sizes; results are compared as far as these go. */
function sameResults(results: Pick<ScanTensors, "ids" | "scores" | "found">, expected: Evidence["expected"]): boolean {
  const { ids, scores } = expected as unknown as ScanTensors;
  return results.ids.every((id, i) => id === ids[i]) && results.scores.every((score, i) => score === scores[i]);
}

function hasTies(expected: Evidence["expected"], k: number): boolean {
  const { ids, scores } = expected as unknown as ScanTensors;
  return scores.some((score, i) => i % k > 0 && score === scores[i - 1] && (ids[i] as number) >= 0);
}

function shortened(call: ReferenceCall): ReferenceCall {
  const { batch, dim } = call.axes as Axes;
  const { queries } = call.tensors as ScanTensors;
  const short = new Float32Array(batch * (dim - 1));
  for (let q = 0; q < batch; q++) short.set(queries.subarray(q * dim, (q + 1) * dim - 1), q * (dim - 1));
  return { ...withTensors(call, { queries: short }), axes: { ...call.axes, dim: dim - 1 } };
}

function swapped(call: ReferenceCall): ReferenceCall {
  const { batch, dim } = call.axes as Axes;
  const queries = (call.tensors as ScanTensors).queries.slice();
  if (batch < 2) return call;
  const first = queries.slice(0, dim);
  queries.copyWithin(0, dim, 2 * dim);
  queries.set(first, dim);
  return withTensors(call, { queries });
}

const withoutNaN = (call: ReferenceCall): ReferenceCall =>
  withTensors(call, { queries: (call.tensors as ScanTensors).queries.map((value) => (Number.isNaN(value) ? 0 : value)) });

/** The reference over the rows in reverse: equal scores end with the higher row first. */
function reversed(call: ReferenceCall, op: Op): void {
  const { count } = call.axes as Axes;
  const pitch = call.pitch.rows as number;
  const { rows, rowScale, filter, ids } = call.tensors as ScanTensors;
  const turned = new (rows.constructor as new (length: number) => HostArray)(count * pitch) as Float32Array;
  const scale = rowScale && new Float32Array(rowScale.length);
  const bits = filter && new Uint32Array(filter.length);
  for (let r = 0; r < count; r++) {
    const other = count - 1 - r;
    turned.set((rows as Float32Array).subarray(r * pitch, Math.min((r + 1) * pitch, rows.length)), other * pitch);
    if (scale && rowScale) scale[other] = rowScale[r] as number;
    if (bits && filter && bitAt(filter, r)) bits[other >> 5] = (bits[other >> 5] as number) | (1 << (other & 31));
  }
  op.reference(withTensors(call, { rows: turned, ...(scale ? { rowScale: scale } : {}), ...(bits ? { filter: bits } : {}) }));
  for (let i = 0; i < ids.length; i++) if ((ids[i] as number) >= 0) ids[i] = count - 1 - (ids[i] as number);
}
