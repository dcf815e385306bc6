// node examples/dist/streaming.js
// Streaming video attention: frames of tokens go through a rolling cache that keeps its first frames, and every token of a frame
// attends to all frames the cache holds. A cut in the stream puts a frame of the new scene among the sinks.
import { attention, findHotset } from "hotset";

const [tokens, heads, dim, frames] = [48, 4, 64, 6];
const cache = new attention.RollingFrameCache({ frames, sinks: 3, denoisingSteps: 2, refreshBelow: 0.2 });
const sizer = new attention.BatchSizer({ deadline: 40, largest: 8, denoisingSteps: cache.denoisingSteps });
const hotset = await findHotset();

let seed = 1;
const noise = (): number => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return seed / 2 ** 31 - 1;
};
// A page is a slot of the cache: [slot, head, token, component]. Each token is a sequence of its own, so that all see the whole
// frame: attention within a frame is not causal.
const each = heads * tokens * dim;
const keyPages = new Float32Array(frames * each);
const valuePages = new Float32Array(frames * each);
const pageTable = new Int32Array(tokens * frames);
const lengths = new Int32Array(tokens);
const queries = new Float32Array(tokens * heads * dim);
const plan = hotset.planSync(
  attention.prefill,
  {
    tokens,
    batch: tokens,
    queryHeads: heads,
    kvHeads: heads,
    headDim: dim,
    valueDim: dim,
    pages: frames,
    pageSize: tokens,
    maxPages: frames,
  },
  { keyPages: "f32" },
);
const queryOffsets = Int32Array.from({ length: tokens + 1 }, (_, i) => i);
const step = plan.bind({ queries, keyPages, valuePages, pageTable, queryOffsets, lengths });
const means = new Map<number, attention.FrameMeans>();

let scene = Float32Array.from({ length: each }, noise);
const refreshed: number[] = [];
for (let frame = 0; frame < 40; frame++) {
  if (frame === 20) scene = Float32Array.from({ length: each }, noise);
  for (let denoising = 0; denoising < cache.denoisingSteps; denoising++) {
    const [keys, values] = [scene.map((x) => x + 0.2 * noise()), scene.map((x) => 0.5 * x + 0.2 * noise())];
    const own = attention.frameMeans(keys, values, heads, tokens);
    const similarity = [0, 1, 2].map((sink) =>
      means.has(sink) ? attention.frameSimilarity(own, means.get(sink) as attention.FrameMeans) : 0,
    );
    // A real model rotates its keys by `position` here.
    const { slot, held, kind, pass } = cache.pass(cache.asksSimilarity ? similarity : undefined);
    if (kind === "refresh" && pass === 0) refreshed.push(frame);
    keyPages.set(keys, slot * each);
    valuePages.set(values, slot * each);
    means.set(slot, own);
    for (let t = 0; t < tokens; t++) for (let s = 0; s < held; s++) pageTable[t * frames + s] = s;
    lengths.fill(held * tokens);
    queries.set(queries.map(noise));
    const start = performance.now();
    step.run();
    sizer.observe(1, performance.now() - start);
  }
  cache.audit();
}
console.log(
  `streaming (${plan.backend}): 40 frames through ${frames} slots; the cut at frame 20 refreshed sinks at ${refreshed.join(", ")}`,
);
const { batch, predicted } = sizer.choose();
console.log(`a frame takes ${predicted?.toFixed(2)} ms for attention; ${batch} frames a batch meet 40 ms`);
hotset.dispose();
