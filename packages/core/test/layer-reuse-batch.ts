/** Batches of sequences that come and go, each against the same sequence alone and against plain loops. */
import { attention, createHotset, type HostBackend } from "@hotset/core";
import { Random } from "@hotset/core/testing";
import { expect } from "vitest";

const axes = { batch: 4, queryHeads: 4, kvHeads: 2, headDim: 16, valueDim: 16, pages: 60, pageSize: 8, maxPages: 12 };
const most = axes.maxPages * axes.pageSize;

/** What is measured of the batch: everything a policy says that depends on a sequence's length. */
const policies: Record<string, unknown>[] = [
  {
    version: 2,
    layers: [
      { kind: "anchor", k: 8, ratio: 0.3 },
      { kind: "reuse", source: 0, headMap: [1, 1] },
      { kind: "full" },
      { kind: "anchor", k: 24, attends: "list" },
      { kind: "reuse", source: 3 },
    ],
    granularity: 4,
    sink: 3,
    recent: 6,
    minContext: 40,
  },
  {
    layers: [
      { kind: "anchor", ratio: 0.2 },
      { kind: "reuse", source: 0 },
    ],
    granularity: 1,
    perHead: false,
    minContext: 60,
  },
];

interface Place {
  length: number;
}

/** Sequences grow, end, and leave their places to others; lengths before and behind `minContext`, 0, and the most there is. */
function* moves(random: Random, steps: number): Generator<{ places: readonly Place[]; taken: readonly number[] }> {
  const places: Place[] = [{ length: 0 }, { length: 38 }, { length: 70 }, { length: most - 4 }];
  yield { places, taken: [] };
  for (let step = 1; step < steps; step++) {
    const taken: number[] = [];
    for (const [b, place] of places.entries()) {
      const ends = place.length === most || random.below(6) === 0;
      if (ends) {
        place.length = random.below(3) === 0 ? 0 : 1 + random.below(most);
        taken.push(b);
      } else if (place.length > 0 || random.below(2) === 0) place.length++;
    }
    yield { places, taken };
  }
}

/**
 * On a backend (js without one): in every step each sequence of the batch has the lists and the bits that it has alone, which
 * are those of plain loops; and counts add up.
 */
export async function expectSequencesAlone(backend?: HostBackend): Promise<void> {
  const hotset = await createHotset({ backends: backend ? [backend] : [] });
  const on = { keyPages: "f32", backend: backend?.id ?? "js" } as const;
  for (const source of policies) {
    const policy = attention.parsePolicy(source);
    const random = new Random(JSON.stringify(source));
    const stored = axes.pages * axes.kvHeads * axes.pageSize * axes.headDim;
    const caches = policy.layers.map(() => ({
      queries: new Float32Array(axes.batch * axes.queryHeads * axes.headDim),
      keyPages: random.values(stored, () => 2 * random.normal()),
      valuePages: random.values(stored, () => random.normal()),
    }));
    const pageTable = Int32Array.from({ length: axes.batch * axes.maxPages }, (_, i) => (i * 7) % axes.pages);
    const lengths = new Int32Array(axes.batch);
    const bound = (reuse: attention.LayerReuse, b?: number) =>
      caches.map((cache, layer) =>
        reuse.bind(layer, b === undefined ? { ...cache, pageTable, lengths } : alone({ ...cache, pageTable, lengths }, b)),
      );
    const together = await attention.LayerReuse.create(hotset, { policy, axes, ...on });
    const steps = bound(together);
    const each = await Promise.all(
      Array.from({ length: axes.batch }, async (_, b) => {
        const reuse = await attention.LayerReuse.create(hotset, { policy, axes: { ...axes, batch: 1 }, ...on });
        return { reuse, steps: bound(reuse, b) };
      }),
    );
    let mixed = 0;
    let sparse = false;
    for (const { places, taken } of moves(random, 24)) {
      lengths.set(places.map(({ length }) => length));
      for (const b of taken) {
        together.reset(b);
        each[b]?.reuse.reset(0);
      }
      sparse = places.some(({ length }) => length >= policy.minContext);
      const active = places.filter(({ length }) => length > 0);
      mixed += Number(active.some(({ length }) => length < policy.minContext) && active.some(({ length }) => length >= policy.minContext));
      for (const [layer, { queries }] of caches.entries()) {
        queries.set(random.values(queries.length, () => random.normal()));
        const { out, lse } = (steps[layer] as attention.LayerStep).run();
        for (const [b, { reuse, steps: own }] of each.entries()) {
          const single = (own[layer] as attention.LayerStep).run();
          const length = lengths[b] as number;
          expect([...row(out, b)]).toEqual([...single.out]);
          expect([...row(lse, b)]).toEqual([...single.lse]);
          const dense = length < policy.minContext || length === 0;
          for (let head = 0; head < axes.kvHeads; head++) {
            const list = together.listed(layer, b, head);
            if (length > 0) expect(list).toEqual(reuse.listed(layer, 0, head));
            const wanted = dense
              ? undefined
              : plainList(
                  policy,
                  layer,
                  length,
                  (at, kvHead) => plainMasses(caches[at] as Cache, pageTable, b, length, kvHead, policy.granularity),
                  head,
                );
            if (length > 0) expect(list && [...list]).toEqual(wanted);
            near(
              single.out,
              plainOut(caches[layer] as Cache, pageTable, b, length, head, policy.granularity, attends(policy, layer) ? wanted : undefined),
              head,
            );
          }
        }
      }
    }
    expect(mixed).toBeGreaterThan(3);
    const counts = (name: "tokensAttended" | "tokensVisible"): number => each.reduce((sum, { reuse }) => sum + reuse.counters[name], 0);
    expect(together.counters).toMatchObject({
      tokensAttended: counts("tokensAttended"),
      tokensVisible: counts("tokensVisible"),
      sparseActive: sparse,
    });
    expect(together.counters.tokensAttended).toBeLessThan(together.counters.tokensVisible);
    for (const step of [...steps, ...each.flatMap((one) => one.steps)]) step.dispose();
  }
}

interface Cache {
  readonly queries: Float32Array;
  readonly keyPages: Float32Array;
  readonly valuePages: Float32Array;
}
type Inputs = Cache & { readonly pageTable: Int32Array; readonly lengths: Int32Array };

const row = (array: Float32Array, b: number): Float32Array => {
  const size = array.length / axes.batch;
  return array.subarray(b * size, (b + 1) * size);
};

/** One sequence of the batch, over the same cache. */
const alone = ({ queries, pageTable, lengths, ...pages }: Inputs, b: number): Inputs => ({
  ...pages,
  queries: row(queries, b),
  pageTable: pageTable.subarray(b * axes.maxPages, (b + 1) * axes.maxPages),
  lengths: lengths.subarray(b, b + 1),
});

const attends = ({ layers }: attention.LayerPolicy, layer: number): boolean => {
  const rule = layers[layer] as attention.LayerRule;
  return rule.kind === "reuse" || (rule.kind === "anchor" && rule.attends === "list");
};

/** The list of a layer's head by its anchor's masses: forced ends, then the heaviest. */
function plainList(
  { layers, granularity, perHead, sink, recent }: attention.LayerPolicy,
  layer: number,
  length: number,
  masses: (layer: number, kvHead: number) => number[],
  head: number,
): number[] | undefined {
  const rule = layers[layer] as attention.LayerRule;
  if (rule.kind === "full") return undefined;
  const at = rule.kind === "reuse" ? rule.source : layer;
  const anchor = layers[at] as Extract<attention.LayerRule, { kind: "anchor" }>;
  const from = rule.kind === "reuse" ? (rule.headMap?.[head] ?? head) : head;
  const own = perHead ? masses(at, from) : masses(at, 0).map((mass, g) => mass + (masses(at, 1)[g] as number));
  const tokens = Math.max(anchor.k ?? 0, Math.ceil((anchor.ratio ?? 0) * length));
  const all = own.map((_, g) => g);
  const last = all.filter((g) => (g + 1) * granularity > length - Math.max(1, recent));
  const budget = Math.min(all.length, Math.max(1, Math.ceil(tokens / granularity)));
  const first = all.filter((g) => g * granularity < sink && !last.includes(g)).slice(0, Math.max(0, budget - last.length));
  const forced = [...first, ...last.slice(-budget)];
  const rest = all.filter((g) => !forced.includes(g)).sort((i, j) => (own[j] as number) - (own[i] as number));
  return [...forced, ...rest.slice(0, budget - forced.length)].sort((i, j) => i - j);
}

function plainWeights({ queries, keyPages }: Cache, pageTable: Int32Array, b: number, tokens: readonly number[], head: number) {
  const kvHead = Math.floor((head * axes.kvHeads) / axes.queryHeads);
  const slot = (t: number): number =>
    (((pageTable[b * axes.maxPages + Math.floor(t / axes.pageSize)] as number) * axes.kvHeads + kvHead) * axes.pageSize +
      (t % axes.pageSize)) *
    axes.headDim;
  const exps = tokens.map((t) => {
    let dot = 0;
    for (let i = 0; i < axes.headDim; i++)
      dot += (queries[(b * axes.queryHeads + head) * axes.headDim + i] as number) * (keyPages[slot(t) + i] as number);
    return Math.exp(dot / Math.sqrt(axes.headDim));
  });
  const sum = exps.reduce((a, c) => a + c, 0);
  return { weights: exps.map((value) => value / sum), slot };
}

const heads = (kvHead: number): number[] => [2 * kvHead, 2 * kvHead + 1];
const upTo = (length: number): number[] => Array.from({ length }, (_, t) => t);

function plainMasses(cache: Cache, pageTable: Int32Array, b: number, length: number, kvHead: number, granularity: number): number[] {
  const masses = new Array<number>(Math.ceil(length / granularity)).fill(0);
  for (const head of heads(kvHead))
    for (const [t, weight] of plainWeights(cache, pageTable, b, upTo(length), head).weights.entries())
      masses[Math.floor(t / granularity)] = (masses[Math.floor(t / granularity)] as number) + weight / 2;
  return masses;
}

/** [2, headDim] of the query heads of a KV head, over the listed granules or over everything. */
function plainOut(
  cache: Cache,
  pageTable: Int32Array,
  b: number,
  length: number,
  kvHead: number,
  granularity: number,
  list?: readonly number[],
) {
  const tokens = upTo(length).filter((t) => list?.includes(Math.floor(t / granularity)) ?? true);
  return heads(kvHead).map((head) => {
    const { weights, slot } = plainWeights(cache, pageTable, b, tokens, head);
    return Array.from({ length: axes.headDim }, (_, i) =>
      tokens.reduce((sum, t, at) => sum + (weights[at] as number) * (cache.valuePages[slot(t) + i] as number), 0),
    );
  });
}

function near(out: Float32Array, wanted: readonly (readonly number[])[], kvHead: number): void {
  for (const [i, head] of heads(kvHead).entries())
    for (const [d, value] of (wanted[i] as readonly number[]).entries())
      expect(Math.abs(value - (out[head * axes.headDim + d] as number))).toBeLessThan(2e-5);
}
