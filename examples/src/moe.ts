/** One MoE layer whose experts do not all fit: a router chooses, an expert cache says what to load, kernels compute. */
import { moe, toF16 } from "hotset";

const [experts, topK, slots, dim, hidden, tokens] = [32, 4, 8, 384, 768, 200];
const wave = (n: number, step: number, size: number) => Float32Array.from({ length: n }, (_, i) => size * Math.sin(i * i * step + step));
const router = wave(experts * dim, 0.37, 0.2);
// Every expert's gate, up and down: on a disk, or in another memory. Slots hold f16.
const weightsOf = (e: number) => [1, 2, 3].map((part) => wave(hidden * dim, 0.01 * part + 0.001 * e, 0.05));
const stored = Array.from({ length: experts }, (_, e) => weightsOf(e).map((values) => toF16(values)));
const memory = [0, 1, 2].map(() => new Uint16Array(slots * hidden * dim));
const cache = new moe.ExpertCache({ layers: 1, experts, slots, policy: "ema", expertBytes: 3 * 2 * hidden * dim });

const slotsAs = (part: number, shape: number[]) => ({ data: memory[part] as Uint16Array, dtype: "f16" as const, shape: [slots, ...shape] });
const [gate, up, down] = [slotsAs(0, [hidden, dim]), slotsAs(1, [hidden, dim]), slotsAs(2, [dim, hidden])];
const blocks = { topK, blockSize: 1, capacity: topK };
let x = wave(dim, 0.11, 1);
let [kernelMs, plainMs, largest, backend] = [0, 0, 0, ""];
for (let token = 0; token < tokens; token++) {
  // Neighbouring tokens are alike: that is what a cache lives on.
  x = x.map((value, i) => 0.9 * value + 0.4 * Math.sin((token + 1) * (i + 1)));
  const logits = Float32Array.from({ length: experts }, (_, e) => x.reduce((sum, v, i) => sum + v * (router[e * dim + i] as number), 0));
  const { ids, weights } = await moe.route({ logits, experts, topK, groups: 1, keptGroups: 1, score: "softmax", renormalise: true });
  const { slots: places, load } = cache.event(0, ids);
  const loads = [...places.entries()].filter(([k]) => load[k]);
  for (const [k, slot] of loads)
    for (const [part, all] of memory.entries()) all.set(stored[ids[k] as number]?.[part] as Uint16Array, slot * hidden * dim);
  const start = performance.now();
  const { sorted, blockExpert } = await moe.align({ ids, experts, ...blocks });
  const ffn = await moe.groupedFfn({ x, sorted, blockExpert, expertSlot: cache.expertSlot(0), gate, up, down, tokens: 1, ...blocks });
  const { out } = await moe.combine({ rows: ffn.out, weights, topK, dim });
  [kernelMs, backend] = [kernelMs + performance.now() - start, ffn.backend];
  if (token % 20) continue;
  const original = Array.from(ids, weightsOf);
  const before = performance.now();
  const plain = original.map((own, k) => plainExpert(own as [Float32Array, Float32Array, Float32Array], weights[k] as number));
  plainMs += 20 * (performance.now() - before);
  out.forEach((value, i) => {
    largest = Math.max(largest, Math.abs(value - plain.reduce((sum, rows) => sum + (rows[i] as number), 0)));
  });
}
const { hits, misses, bytes } = cache.counters;
const [each, faster] = [(kernelMs / tokens).toFixed(2), (plainMs / kernelMs).toFixed(1)];
console.log(
  `moe: ${tokens} made-up tokens, ${topK} of ${experts} experts in ${slots} slots, on ${backend}: ${each} ms a token, ${faster} times as fast as ` +
    `a loop on f32 weights (largest difference ${largest.toExponential(1)}: the slots hold f16); hit ratio ${(hits / (hits + misses)).toFixed(3)}, ` +
    `${(bytes / 1e6 / tokens).toFixed(1)} MB loaded a token`,
);

function plainExpert([gateRows, upRows, downRows]: [Float32Array, Float32Array, Float32Array], weight: number): Float32Array {
  const product = (rows: Float32Array, at: number, by: Float32Array): number => {
    let sum = 0;
    for (let i = 0; i < by.length; i++) sum += (by[i] as number) * (rows[at * by.length + i] as number);
    return sum;
  };
  const silu = (g: number): number => g / (1 + Math.exp(-g));
  const inside = Float32Array.from({ length: hidden }, (_, h) => silu(product(gateRows, h, x)) * product(upRows, h, x));
  return Float32Array.from({ length: dim }, (_, i) => weight * product(downRows, i, inside));
}
