// node examples/dist/attention.js
// Sparse attention with layer reuse: of four layers one looks at all 16384 tokens and lists what weighed most, three look
// only at that. The cache is made here: a few hundred tokens matter to a query, the same ones in every layer.
import { attention, createHotset, findHotset } from "hotset";

const axes = { batch: 1, queryHeads: 16, kvHeads: 4, headDim: 64, valueDim: 64, pages: 1024, pageSize: 16, maxPages: 1024 };
const tokens = axes.pages * axes.pageSize;
const policy = attention.parsePolicy({
  layers: [{ kind: "anchor", ratio: 0.0625 }, ...[1, 2, 3].map(() => ({ kind: "reuse", source: 0 }))],
  sink: 4,
  recent: 64,
});

let seed = 1;
const noise = (): number => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed / 2 ** 31 - 1;
};
const matters = Array.from({ length: 24 }, () => Math.floor(((noise() + 1) / 2) * (axes.pages - 1)));
const layers = policy.layers.map(() => {
  const topic = Float32Array.from({ length: 64 }, noise);
  const values = new Float32Array(tokens * axes.kvHeads * 64).map(noise);
  const keyPages = new Float32Array(values.length).map(noise);
  // Pages [page, kvHead, token, component]: those that matter point where the layer's queries do.
  for (const page of matters)
    for (let i = 0; i < axes.kvHeads * 16 * 64; i++)
      keyPages[page * axes.kvHeads * 1024 + i] = 2 * (topic[i % 64] as number) + 0.3 * noise();
  const queries = Float32Array.from({ length: axes.queryHeads * 64 }, (_, i) => 2 * (topic[i % 64] as number) + 0.3 * noise());
  return { queries, keyPages, valuePages: values };
});
const shared = { pageTable: Int32Array.from({ length: axes.pages }, (_, i) => i), lengths: Int32Array.of(tokens) };

const hotset = await findHotset();
const reuse = await attention.LayerReuse.create(hotset, { policy, axes, keyPages: "f32" });
const sparse = layers.map((layer, i) => reuse.bind(i, { ...layer, ...shared }));
const plan = await hotset.plan(attention.decode, axes, { keyPages: "f32" }, { backend: reuse.backend });
const dense = layers.map((layer) => plan.bind({ ...layer, ...shared }));
const js = await createHotset();
const plain = layers.map((layer) => js.planSync(attention.decode, axes, { keyPages: "f32" }).bind({ ...layer, ...shared }));

// On the CPU a run ends when it returns, and copies nothing; on a GPU it has to be awaited.
const time = async (steps: readonly { run(): unknown; runAsync(): Promise<unknown> }[], rounds: number): Promise<number> => {
  const start = performance.now();
  for (let round = 0; round < rounds; round++) for (const step of steps) plan.onDevice ? await step.runAsync() : step.run();
  return (performance.now() - start) / rounds;
};
await time([...dense, ...sparse], 2);
const [withLists, whole, loops] = [await time(sparse, 20), await time(dense, 20), await time(plain.slice(0, 1), 1)];
const difference = sparse.map((step, i) =>
  Math.max(...step.outputs.out.map((value, j) => Math.abs(value - (dense[i]?.outputs.out[j] as number)))),
);
const { massKept, tokensAttended, tokensVisible, sparseActive } = reuse.counters;
console.log(
  `attention: a step of 4 layers over ${tokens} made-up tokens takes ${withLists.toFixed(2)} ms on ${reuse.backend} with lists of the first layer, ` +
    `${(whole / withLists).toFixed(1)} times as fast as dense and ${((4 * loops) / withLists).toFixed(0)} times as plain loops`,
);
console.log({ massKept, attended: tokensAttended / tokensVisible, sparseActive, difference });
for (const step of [...sparse, ...dense, ...plain]) step.dispose();
hotset.dispose();
