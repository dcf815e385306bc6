import type { HostArray } from "../../dtype.js";
import type { Case, Law, Tensors } from "../../testing/case.js";

type Axes = Record<"batch" | "count" | "dim" | "k", number>;

/** What holds for any inputs, made by `make`. */
export const laws = (make: Case["inputs"]): readonly Law[] => [
  {
    name: "a batch gives what its queries give alone",
    axes: { batch: 15, count: 90, dim: 21, k: 6 },
    async check(run, request) {
      const { batch, dim, k } = request.axes as Axes;
      const inputs = make(request);
      const whole = await run(request.axes, request.variant, inputs);
      for (let q = 0; q < batch; q++) {
        const queries = (inputs.queries as Float32Array).slice(q * dim, (q + 1) * dim);
        const alone = await run({ ...request.axes, batch: 1 }, request.variant, { ...inputs, queries });
        if (!sameResults(whole, q, alone, 0, k)) return `query ${q} differs`;
      }
      return undefined;
    },
  },
  {
    name: "a filter of ones changes nothing",
    axes: { batch: 3, count: 75, dim: 18, k: 9 },
    async check(run, request) {
      if (!request.variant.filter) return undefined;
      const inputs = make(request);
      const { batch, count, k } = request.axes as Axes;
      const { filter: _, ...rest } = inputs;
      const open = await run(request.axes, request.variant, { ...rest, filter: new Uint32Array(Math.ceil(count / 32)).fill(0xffffffff) });
      const none = await run(request.axes, { ...request.variant, filter: false }, rest);
      for (let q = 0; q < batch; q++) if (!sameResults(open, q, none, q, k)) return `query ${q} differs`;
      return undefined;
    },
  },
  {
    name: "a smaller k gives the first of a larger k",
    axes: { batch: 8, count: 120, dim: 11, k: 30 },
    async check(run, request) {
      const { batch, k } = request.axes as Axes;
      const inputs = make(request);
      const many = await run(request.axes, request.variant, inputs);
      const few = await run({ ...request.axes, k: 7 }, request.variant, inputs);
      for (let q = 0; q < batch; q++) {
        const first = (many.ids as Int32Array).subarray(q * k, q * k + 7);
        if (first.some((id, i) => id !== (few.ids as Int32Array)[q * 7 + i])) return `query ${q} differs`;
      }
      return undefined;
    },
  },
  {
    name: "a row finds itself under l2",
    axes: { batch: 12, count: 12, dim: 9, k: 1 },
    async check(run, request) {
      if (request.variant.metric !== "l2" || request.variant.rows !== "f32" || request.variant.filter) return undefined;
      const { rows } = make(request);
      const { ids, scores } = await run(request.axes, request.variant, { rows: rows as HostArray, queries: rows as Float32Array });
      const wrong = (ids as Int32Array).findIndex((id, q) => id !== q || (scores as Float32Array)[q] !== 0);
      return wrong < 0 ? undefined : `row ${wrong} finds ${(ids as Int32Array)[wrong]} at ${(scores as Float32Array)[wrong]}`;
    },
  },
];

function sameResults(a: Tensors, qa: number, b: Tensors, qb: number, k: number): boolean {
  for (let i = 0; i < k; i++) {
    if ((a.ids as Int32Array)[qa * k + i] !== (b.ids as Int32Array)[qb * k + i]) return false;
    if (!Object.is((a.scores as Float32Array)[qa * k + i], (b.scores as Float32Array)[qb * k + i])) return false;
  }
  return (a.found as Uint32Array)[qa] === (b.found as Uint32Array)[qb];
}
