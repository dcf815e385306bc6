/** Kernels at sizes that the suite leaves to real devices: chunks of a row, windows of rows, long lists, and a GPU's tiles. */
import { type AnyAxes, type Op, variants } from "@hotset/core/backend";
import { ops } from "@hotset/core/ops";
import { casesOf, prepare, runCase } from "@hotset/core/testing/cases";
import { describe, expect, it } from "vitest";
import { swiftshader, without } from "../../../test/support/missing.js";
import { type WebgpuSettings, webgpu } from "../dist/index.js";

const gpuTiles = { tunables: { threads: 128, queries: 8, columns: 32, results: 16 } };

/** A case of the suite with other axes, in every variant that `each` leaves, judged as the suite judges. */
async function same(settings: WebgpuSettings, id: string, name: string, axes: AnyAxes, each = 1): Promise<void> {
  const backend = await webgpu(settings);
  const op = ops.find((one) => one.id === id) as Op;
  const cases = await casesOf(op);
  const test = cases.cases.find((one) => one.name === name);
  if (!test) throw new Error(`${id} has no case "${name}"`);
  for (const variant of variants(op).filter((_, i) => i % each === 0)) {
    const { problems, reason } = await runCase(backend, prepare(op, { ...test, axes }, variant, 0), cases, "host", 0);
    expect([problems, reason]).toEqual([[], undefined]);
  }
  backend.dispose();
}

describe.skipIf(without(swiftshader !== undefined))("sizes on SwiftShader (needs chromium's vk_swiftshader)", () => {
  it("logits/logprob: chunks of a row, and windows of rows that begin within 256 bytes", async () => {
    await same({ tunables: { bindingBytes: 40_000 } }, "logits/logprob", "targets outside", { tokens: 3, vocab: 9001, k: 10 });
    await same(gpuTiles, "logits/logprob", "equal logits", { tokens: 2, vocab: 9001, k: 10 });
  });

  it("logits/logprob: lists of 1024", async () => {
    await same({}, "logits/logprob", "all in order", { tokens: 2, vocab: 9000, k: 1024 }, 2);
  });

  it("moe/route: 4096 experts in 256 groups, 64 of them chosen", async () => {
    await same({}, "moe/route", "3 groups, 1 kept", { tokens: 2, experts: 4096, topK: 64, groups: 256, keptGroups: 70 }, 3);
    await same(gpuTiles, "moe/route", "8 groups, 4 kept", { tokens: 3, experts: 256, topK: 8, groups: 8, keptGroups: 4 }, 3);
  });

  it("moe/align: chunks that follow each other, and more rows than one workgroup fills", async () => {
    await same({}, "moe/align", "many tokens", { tokens: 700, topK: 4, experts: 37, blockSize: 8, capacity: 3059 });
    await same(gpuTiles, "moe/align", "experts that are not here", { tokens: 900, topK: 4, experts: 300, blockSize: 4, capacity: 4500 });
    await same({}, "moe/align", "experts that do not exist", { tokens: 9, topK: 3, experts: 7, blockSize: 4, capacity: 20_000 });
  });
});
