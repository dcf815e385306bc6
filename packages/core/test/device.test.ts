import { createHotset, type HotsetError, js, kvCache, search } from "@hotset/core";
import { suiteOf } from "@hotset/core/testing";
import { describe, expect, it } from "vitest";
import { type Pretended, pretendDevice } from "./pretend-device.js";

const axes = { batch: 2, count: 20, dim: 4, k: 3 };
const rows = Float32Array.from({ length: 80 }, (_, i) => Math.cos(i * 2.3));
const inputs = () => ({ queries: rows.slice(8, 16), rows: rows.slice() });
const fast = { launchUs: 1, readGBs: [[1, 1e4]] as const, gflops: 1e6, copyGBs: 10, ops: {}, readbackUs: 10 };
const slow = { launchUs: 1e4, readGBs: [[1, 1]] as const, gflops: 1, copyGBs: 1, ops: {} };

const refused = async (work: () => unknown): Promise<HotsetError> => {
  try {
    await work();
  } catch (error) {
    return error as HotsetError;
  }
  throw new Error("it was not refused");
};

async function on(backend: Pretended) {
  const hotset = await createHotset({ backends: [backend], constants: { cuda: fast, js: slow } });
  return { hotset, plan: () => hotset.plan(search.scan, axes, { rows: "f32" }) };
}

describe("a plan on a device", () => {
  it("compiles before it is there; planSync goes past it", async () => {
    const backend = pretendDevice();
    const { hotset, plan } = await on(backend);
    expect([(await plan()).backend, (await plan()).onDevice, backend.log]).toEqual(["cuda", true, ["prepare", "prepare"]]);
    const sync = hotset.planSync(search.scan, axes, { rows: "f32" });
    expect(sync.backend).toBe("js");
    expect(sync.candidates.find(({ backend: id }) => id === "cuda")?.reason).toMatch(/compiles its kernels first/);
    expect((await refused(() => hotset.planSync(search.scan, axes, { rows: "f32" }, { backend: "cuda" }))).code).toBe("unsupported");
  });

  it("is never auto's choice where the CPU draws it", async () => {
    const backend = pretendDevice();
    backend.software = true;
    const { hotset, plan } = await on(backend);
    expect((await plan()).backend).toBe("js");
    expect((await hotset.plan(search.scan, axes, { rows: "f32" }, { backend: "cuda" })).backend).toBe("cuda");
  });

  it("goes on to the CPU under auto where it cannot compile, bind or run, and says so", async () => {
    const lostAtCompile = pretendDevice();
    lostAtCompile.reason = "gone";
    const there = await on(lostAtCompile);
    const fallen = await there.plan();
    expect([fallen.backend, fallen.bind(inputs()).run().ids[0]]).toEqual(["js", 2]);
    expect(fallen.why).toMatch(/^fell back from cuda \(pretend: expected a device/);
    const full = pretendDevice();
    const { plan } = await on(full);
    const made = await plan();
    full.left = 8;
    expect(made.bind(inputs()).run().ids[0]).toBe(2);
    expect(made.backend).toBe("js");
    const named = await (await on(full)).hotset.plan(search.scan, axes, { rows: "f32" }, { backend: "cuda" });
    expect((await refused(() => named.bind(inputs()))).code).toBe("memory");
  });

  it("does failed work again on the CPU, unless something is inout", async () => {
    const backend = pretendDevice();
    const { hotset } = await on(backend);
    const call = () => hotset.call(search.scan, { ...inputs(), dim: 4, k: 3 });
    expect((await call()).backend).toBe("cuda");
    backend.reason = "gone";
    expect((await call()).backend).toBe("js");
    backend.reason = undefined;
    const state = new Uint32Array(8 + 3 * 5);
    const pool = () => hotset.call(kvCache.poolApply, { state, blocks: 5, commands: Uint32Array.from([0, 0]) });
    expect((await pool()).backend).toBe("cuda");
    backend.reason = "gone";
    expect((await refused(pool)).code).toBe("device");
  });
});

describe("a step on a device", () => {
  it("only queues in run, and waits in done and download", async () => {
    const backend = pretendDevice();
    const plan = await (await on(backend)).plan();
    const [queries, all] = [plan.alloc("queries").upload(rows.slice(8, 16)), plan.alloc("rows").upload(rows)];
    const out = { ids: plan.alloc("ids"), scores: plan.alloc("scores"), found: plan.alloc("found") };
    const step = plan.bind({ queries, rows: all }, out);
    backend.log.length = 0;
    step.run();
    step.run();
    expect(backend.log).toEqual(["submit", "submit"]);
    await step.done();
    expect((await out.ids.download())[0]).toBe(2);
    const target = new Int32Array(6);
    expect(await out.ids.download(target)).toBe(target);
    step.encode({ commands: backend.log });
    expect(backend.log).toEqual(["submit", "submit", "finish 0", "encode", "search/scan"]);
    expect((await refused(() => out.ids.data)).message).toMatch(/Use upload\(array\) and await download/);
    expect((await refused(() => step.outputs.ids)).message).toMatch(/one that stays on cuda/);
    expect(await step.time()).toBe(5);
  });

  it("brings host arrays up and back in runAsync, and refuses them in run", async () => {
    const plan = await (await on(pretendDevice())).plan();
    const ids = new Int32Array(6).fill(77);
    const step = plan.bind(inputs(), { ids });
    expect((await refused(() => step.run())).message).toMatch(/queries, rows, ids, scores, found on the host. Use await step.runAsync/);
    step.set("batch", 1).set("count", 2);
    expect([...(await step.runAsync()).ids]).toEqual([expect.any(Number), expect.any(Number), -1, 77, 77, 77]);
    const running = step.runAsync();
    expect((await refused(() => step.set("batch", 2))).code).toBe("busy");
    step.dispose();
    expect((await refused(() => running)).code).toBe("disposed");
  });

  it("tells of bad indices with the wait, with the words of the CPU", async () => {
    const { hotset } = await on(pretendDevice());
    const pool = { blocks: 4, count: 1 };
    const bad = { state: new Uint32Array(20), commands: Uint32Array.from([1, 9]) };
    const there = await hotset.plan(kvCache.poolApply, pool, {}, { backend: "cuda" });
    const here = await hotset.plan(kvCache.poolApply, pool, {}, { backend: "js" });
    const wanted = (await refused(() => here.bind({ state: bad.state.slice(), commands: bad.commands }).run())).message;
    expect((await refused(() => there.bind(bad).runAsync())).message).toBe(wanted);
    const [state, commands] = [there.alloc("state").upload(bad.state), there.alloc("commands").upload(bad.commands)];
    const step = there.bind({ state, commands }, { results: there.alloc("results") });
    step.run();
    expect((await refused(() => step.done())).message).toBe(wanted);
    await step.done();
  });

  it("takes a runtime's pointer, and only one of its own device", async () => {
    const plan = await (await on(pretendDevice())).plan();
    const mine = { data: { pointer: 4096n, bytes: 4096 }, dtype: "f32" } as const;
    expect((await plan.bind({ ...inputs(), rows: mine }).runAsync()).found.length).toBe(2);
    const other = { data: { pointer: 1n, bytes: 4096 }, dtype: "f32" } as const;
    expect((await refused(() => plan.bind({ ...inputs(), rows: other }))).message).toMatch(/received a buffer of another device/);
    const short = { data: { pointer: 4096n, bytes: 4 }, dtype: "f32" } as const;
    expect((await refused(() => plan.bind({ ...inputs(), rows: short }))).code).toBe("shape");
  });
});

describe("the cost of a device", () => {
  const large = { batch: 1, count: 100_000, dim: 64, k: 10 };
  it("counts transfer, launch and readback, and what lies on it already", async () => {
    const { hotset } = await on(pretendDevice());
    const cost = (resident: readonly string[] | Record<string, string>, id = "cuda") =>
      hotset.explain(search.scan, large, { rows: "f32" }, { resident }).find(({ backend }) => backend === id)?.prediction;
    const moved = 25_600_000 / 1e4;
    expect(cost([])?.transferUs).toBeCloseTo(moved, -1);
    expect(cost([])?.readbackUs).toBeGreaterThan(10);
    expect(cost({ rows: "cuda" })?.transferUs).toBeLessThan(1);
    expect(cost({ ids: "cuda", scores: "cuda", found: "cuda" })?.readbackUs).toBe(0);
    // Leaving the device costs a plan on the CPU the same way.
    expect(cost({ rows: "cuda" }, "js")?.transferUs).toBeGreaterThan(cost([], "js")?.transferUs ?? Number.NaN);
  });
});

it("conformance on a device goes through host arrays and through resident tensors", async () => {
  const { items } = await suiteOf(pretendDevice());
  for (const { run } of items.filter((_, i) => i % 40 === 0)) await run();
  const broken = pretendDevice();
  const kernel = broken.kernel;
  Object.assign(broken, {
    kernel: (request: Parameters<typeof kernel>[0]) => {
      const made = kernel(request);
      if (typeof made === "string") return made;
      return { ...made, bind: (binding: Parameters<typeof made.bind>[0]) => ({ ...made.bind(binding), submit() {} }) };
    },
  });
  const [first] = (await suiteOf(broken)).items.filter(({ op }) => op.id === "search/scan");
  expect((await refused(() => (first as { run(): unknown }).run())).message).toMatch(/runAsync.*\n.*run, done and download/s);
});

it("the CPU's steps have the same methods", async () => {
  const hotset = await createHotset({ backends: [js()] });
  const step = hotset.planSync(search.scan, axes, { rows: "f32" }).bind(inputs());
  expect(await step.done()).toBeUndefined();
  expect(await step.time()).toBeGreaterThan(0);
  expect((await refused(() => step.encode({}))).message).toMatch(/expected a step on a device but received one on js/);
  const tensor = hotset.alloc("f32", [3]).upload(Float32Array.of(1, 2, 3));
  expect([...(await tensor.download()), ...tensor.data]).toEqual([1, 2, 3, 1, 2, 3]);
});
