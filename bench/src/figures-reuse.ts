/**
 * `node bench/dist/figures-reuse.js`: the attention of whole decode steps of 32 layers at 16384 tokens, by a policy with 8
 * anchors whose lists of 1024 tokens the other 24 layers take, against all layers dense; both through LayerReuse, native,
 * 32 query and 8 KV heads of 128; HOTSET_THREADS threads, 2 without it. Each layer has a cache of its own, so that none is
 * in a processor's cache when its turn comes. `--dtype f32` (4.3 GB) instead of f16 (2.1 GB); `--rounds N`, default 7.
 */
import { cpus } from "node:os";
import { parseArgs } from "node:util";
import { Random } from "@hotset/core/testing/cases";
import { native } from "@hotset/kernels-native";
import { attention, createHotset, toF16 } from "hotset";
import { interleaved, median, once } from "./timing.js";

const { values } = parseArgs({
  options: {
    dtype: { type: "string", default: "f16" },
    rounds: { type: "string", default: "7" },
    layers: { type: "string", default: "32" },
  },
});
const dtype = values.dtype === "f32" ? "f32" : "f16";
const threads = Number(process.env.HOTSET_THREADS ?? 2);
const [layers, tokens, pageSize, listed] = [Number(values.layers), 16384, 16, 1024];
const pages = tokens / pageSize;
const axes = { batch: 1, queryHeads: 32, kvHeads: 8, headDim: 128, valueDim: 128, pages, pageSize, maxPages: pages };
const hotset = await createHotset({ backends: [native({ threads })] });
const random = new Random("figures-reuse");

const normal = random.values(2 ** 18 + 1, () => random.normal());
const half = toF16(normal);
const stored = pages * axes.kvHeads * pageSize * 128;
/** A layer's rows: the same numbers from another place, so that all of it is memory of its own. */
function rows(start: number): Float32Array | Uint16Array {
  const pattern = dtype === "f32" ? normal : half;
  const array = dtype === "f32" ? new Float32Array(stored) : new Uint16Array(stored);
  let [at, from] = [0, start % pattern.length];
  while (at < stored) {
    const count = Math.min(pattern.length - from, stored - at);
    array.set(pattern.subarray(from, from + count), at);
    at += count;
    from = 0;
  }
  return array;
}

// Pages lie in random order, as a pool hands them out.
const pageTable = Int32Array.from({ length: pages }, (_, i) => i);
for (let i = pages - 1; i > 0; i--) {
  const j = random.below(i + 1);
  [pageTable[i], pageTable[j]] = [pageTable[j] as number, pageTable[i] as number];
}
const lengths = Int32Array.of(tokens);
const caches = Array.from({ length: layers }, (_, layer) => ({
  queries: random.values(axes.queryHeads * 128, () => random.normal()),
  keyPages: rows(7919 * layer),
  valuePages: rows(104729 * (layer + 1)),
  pageTable,
  lengths,
}));

/** HyLRA's form: an anchor, which looks at everything, and the layers behind it that take its list. */
const hylra = attention.parsePolicy({
  layers: Array.from({ length: layers }, (_, layer) =>
    layer % 4 === 0 ? { kind: "anchor", k: listed } : { kind: "reuse", source: layer - (layer % 4) },
  ),
  granularity: 16,
  sink: 16,
  recent: 16,
});
const dense = attention.parsePolicy({ layers: caches.map(() => ({ kind: "full" })) });
const bound = async (policy: attention.LayerPolicy) => {
  const reuse = await attention.LayerReuse.create(hotset, { policy, axes, keyPages: dtype, backend: "native" });
  const steps = caches.map((cache, layer) => reuse.bind(layer, cache as attention.LayerInputs));
  return { reuse, steps };
};
const [all, sparse] = [await bound(dense), await bound(hylra)];
const loop = (steps: readonly { run(): unknown }[]) => (): void => {
  for (const step of steps) step.run();
};
type Kind = "weighed" | "select" | "sparse";

const plain = ops();
check();
const rounds = Number(values.rounds);
const loops = [loop(all.steps), loop(sparse.steps), loop(plain.map(({ step }) => step))];
const runs = interleaved(loops, rounds) as [number[], number[], number[]];
const [tDense, tReuse, tPlain] = runs.map(median) as [number, number, number];
// Round by round: what else runs on the machine meets both.
const ratio = median(runs[0].map((ms, round) => ms / (runs[1][round] as number)));
// A loop of short contexts is mostly calls.
lengths[0] = 64;
const [short, shortPlain] = interleaved(loops.slice(1), 200).map(median) as [number, number];
lengths[0] = tokens;
const times = byKind();

console.log(
  `${cpus()[0]?.model.trim()}, ${threads} threads, Node ${process.version}: ${dtype}, ${layers} layers of 32/8 heads x 128, ${tokens} tokens in pages of 16\n`,
);
const line = (name: string, ms: number, more = ""): void => console.log(`${name.padEnd(56)} ${ms.toFixed(3).padStart(9)} ms${more}`);
const share = (part: number, of: number): string => `  ${((100 * part) / of).toFixed(2)} %`;
line(`decode step, all ${layers} layers dense`, tDense);
line(`decode step, ${layers / 4} anchors, ${(3 * layers) / 4} layers over ${listed} tokens`, tReuse);
line("the same by the ops alone, without LayerReuse", tPlain);
line("what LayerReuse adds, a step (as at 64 tokens)", short - shortPlain, `${share(short - shortPlain, tReuse)} of the step`);
line("a dense layer", tDense / layers);
line("an anchor: attention that weighs granules", times.weighed);
line("an anchor: selection", times.select, `${share(times.select, times.select + times.weighed)} of the anchor`);
line("a layer over the list", times.sparse);
console.log(`\n${ratio >= 2.7 ? "+" : "-"} whole loop, dense over reuse: ${ratio.toFixed(2)} x  at least 2.7 x`);

/** Anchors see everything; a reuse layer gives what js gives over the list that was made. */
function check(): void {
  for (const steps of [all.steps, sparse.steps]) loop(steps)();
  for (const layer of [0, layers - 1]) {
    const [wanted, got] = [all, sparse].map(({ steps }) => steps[layer - (layer % 4)]?.outputs.out as Float32Array);
    expectNear(`layer ${layer - (layer % 4)}`, got as Float32Array, wanted as Float32Array);
  }
  const at = layers - 1;
  const lists = Array.from({ length: axes.kvHeads }, (_, head) => [...(sparse.reuse.listed(at, 0, head) as Int32Array)]);
  const sizes = { ...axes, granularity: 16, lists: axes.kvHeads, k: listed / 16 };
  const inputs = { ...caches[at], selected: Int32Array.from(lists.flat()) };
  const plan = hotset.planSync(attention.decodeSparse, sizes, { keyPages: dtype }, { backend: "js" });
  expectNear(`layer ${at}`, sparse.steps[at]?.outputs.out as Float32Array, plan.bind(inputs as never).run().out);
}

function expectNear(name: string, got: Float32Array, wanted: Float32Array): void {
  const far = wanted.reduce((most, value, i) => Math.max(most, Math.abs(value - (got[i] as number))), 0);
  if (!(far < 1e-4)) throw new Error(`figures-reuse: ${name} is off by ${far}`);
}

/** Medians of an op's time inside the loop. */
function byKind(): Record<Kind, number> {
  const found: Record<Kind, number[]> = { weighed: [], select: [], sparse: [] };
  for (let round = 0; round < rounds; round++) for (const { kind, step } of plain) found[kind].push(once(() => step.run()));
  return { weighed: median(found.weighed), select: median(found.select), sparse: median(found.sparse) };
}

/** The policy's ops, bound by hand. */
function ops(): { kind: Kind; step: { run(): unknown } }[] {
  const [variant, on] = [{ keyPages: dtype }, { backend: "native" }] as const;
  const { kvHeads: heads } = axes;
  const k = listed / 16;
  const weigh = hotset.planSync(attention.decodeAnchor, { ...axes, granularity: 16 }, variant, on);
  const choose = hotset.planSync(attention.select, { batch: 1, heads, granules: pages, granularity: 16, lists: heads, k }, {}, on);
  const attend = hotset.planSync(attention.decodeSparse, { ...axes, granularity: 16, lists: heads, k }, variant, on);
  let selected: Int32Array = new Int32Array();
  return caches.flatMap((cache, layer): { kind: Kind; step: { run(): unknown } }[] => {
    if (layer % 4) return [{ kind: "sparse", step: attend.bind({ ...cache, selected } as never) }];
    const weighed = weigh.bind(cache as never);
    const select = choose.bind({ scores: weighed.outputs.masses, lengths }, {}, { sink: 16, recent: 16 });
    ({ selected } = select.outputs);
    return [
      { kind: "weighed", step: weighed },
      { kind: "select", step: select },
    ];
  });
}
