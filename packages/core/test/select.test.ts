import { type BackendConstants, createHotset, js, search } from "@hotset/core";
import { describe, expect, it } from "vitest";
import { bandwidthAt, predict } from "../src/machine.js";

const constants = (launchUs: number, gbPerS: number, gflops: number, copyGBs = 5): BackendConstants => ({
  launchUs,
  readGBs: [[1 << 20, gbPerS]],
  gflops,
  copyGBs,
  ops: {},
});

const none = { upload: 0, download: 0, foreign: 0 };

describe("the predicted time", () => {
  it("is launch + transfer + the slower of memory and arithmetic", () => {
    const both = { ...constants(3, 10, 100), ops: { x: { bandwidth: 0.5, compute: 0.25 } } };
    expect(predict(both, "x", { bytes: 50_000, flops: 0 }, none).us).toBeCloseTo(3 + 10, 9);
    expect(predict(both, "x", { bytes: 50_000, flops: 1e6 }, none).us).toBeCloseTo(3 + 40, 9);
    expect(predict(both, "x", { bytes: 50_000, flops: 1e6 }, { ...none, upload: 15_000, download: 10_000 }).us).toBeCloseTo(3 + 40 + 5, 9);
  });

  it("counts what a device takes to bring back a result: a wait, and the bytes", () => {
    const device = { ...constants(10, 100, 1000, 5), readbackUs: 200 };
    const stays = predict(device, "x", { bytes: 0, flops: 0 }, { ...none, upload: 50_000 });
    expect([stays.us, stays.transferUs, stays.readbackUs]).toEqual([20, 10, 0]);
    const back = predict(device, "x", { bytes: 0, flops: 0 }, { ...none, download: 50_000 });
    expect([back.us, back.transferUs, back.readbackUs]).toEqual([220, 0, 210]);
  });

  it("reads bandwidth between the measured working sets", () => {
    const points = [
      [1024, 100],
      [1024 * 16, 20],
    ] as const;
    expect([512, 1024, 4096, 1 << 20].map((bytes) => bandwidthAt(points, bytes))).toEqual([100, 100, 60, 20]);
  });
});

describe("the choice", async () => {
  const other = Object.assign(Object.create(js()), {
    id: "native",
    target: "pretend",
    name: "pretend",
    features: [],
    threads: 1,
    inPlace: false,
    kernel: js().kernel,
    alloc: js().alloc,
    owns: () => false,
    probe: () => 1,
    dispose() {},
  });
  const small = { batch: 1, count: 10, dim: 8, k: 1 };
  const large = { batch: 64, count: 100_000, dim: 128, k: 10 };
  const hotset = await createHotset({ backends: [other], constants: { native: constants(50, 100, 1000), js: constants(0.1, 2, 1) } });

  it("goes by predicted time: small work to the one that starts faster, large to the faster one", () => {
    expect(hotset.planSync(search.scan, small, { rows: "f32" }).backend).toBe("js");
    expect(hotset.planSync(search.scan, large, { rows: "f32" }).backend).toBe("native");
  });

  it("counts the transfer of what is not resident", () => {
    const one = { batch: 1, count: 100_000, dim: 128, k: 10 };
    const cost = (resident: string[]) =>
      hotset.explain(search.scan, one, { rows: "f32" }, { resident }).find(({ backend }) => backend === "native");
    expect(cost([])?.prediction?.transferUs).toBeGreaterThan(10_000);
    expect(cost(["rows"])?.prediction?.transferUs).toBeLessThan(1);
  });

  it("shows every candidate, the fastest first, with a reason for the others", async () => {
    const unable = { ...other, id: "wasm", kernel: () => "it has no such kernel", name: "unable", target: "x" };
    const three = await createHotset({ backends: [other, unable], missing: [{ id: "cuda", reason: "no device" }] });
    const candidates = three.explain(search.scan, large, { rows: "f32" });
    expect(candidates.map(({ backend }) => backend)).toEqual(["native", "js", "wasm", "cuda"]);
    expect(candidates.slice(2).map(({ reason }) => reason)).toEqual(["it has no such kernel", "no device"]);
    expect(() => three.planSync(search.scan, large, { rows: "f32" }, { backend: "wasm" })).toThrow(
      /wasm to have a kernel for this but received it has no such kernel/,
    );
    expect(() => three.planSync(search.scan, large, { rows: "f32" }, { backend: "cuda" })).toThrow(/it is not available: no device/);
  });

  it("says whether it was measured here", () => {
    expect(hotset.planSync(search.scan, large, { rows: "f32" }).why).toContain("as measured here");
  });
});
