import { type Backend, createHotset, HotsetError, js, kvCache, search } from "@hotset/core";
import { describe, expect, it } from "vitest";

const axes = { batch: 2, count: 20, dim: 4, k: 3 };
const rows = Float32Array.from({ length: 80 }, (_, i) => Math.cos(i * 2.3));
const inputs = () => ({ queries: rows.slice(8, 16), rows: rows.slice() });
const hotset = await createHotset();
const plan = await hotset.plan(search.scan, axes, { rows: "f32" });

const code = (work: () => unknown): string => {
  try {
    work();
  } catch (error) {
    if (error instanceof HotsetError) return error.code;
    throw error;
  }
  return "none";
};
const codeOf = (work: () => Promise<unknown>): Promise<string> =>
  work().then(
    () => "none",
    (error: HotsetError) => error.code,
  );

describe("a plan", () => {
  it("shows what was chosen, and why", () => {
    expect([plan.backend, plan.target, plan.kernel, plan.deterministic]).toEqual(["js", "js", "reference", true]);
    expect(plan.variant).toEqual({ metric: "cos", rows: "f32", filter: false });
    expect(plan.why).toMatch(/^js is predicted at .* no other backend can run it/);
    expect(plan.candidates).toHaveLength(1);
  });

  it("refuses sizes, dtypes and tensors that do not fit", async () => {
    expect(await codeOf(() => hotset.plan(search.scan, { ...axes, dim: 0 }, { rows: "f32" }))).toBe("shape");
    expect(await codeOf(() => hotset.plan(search.scan, { ...axes, width: 3 } as never, { rows: "f32" }))).toBe("shape");
    expect(await codeOf(() => hotset.plan(search.scan, axes, { rows: "f64" as never }))).toBe("dtype");
    expect(await codeOf(() => hotset.plan(search.scan, axes, { rows: "f32", queries: "f32" } as never))).toBe("argument");
    expect(code(() => plan.bind({ ...inputs(), queries: new Float32Array(7) }))).toBe("shape");
    expect(code(() => plan.bind({ ...inputs(), filter: new Uint32Array(1) } as never))).toBe("argument");
    expect(code(() => plan.alloc("filter"))).toBe("argument");
  });

  it("refuses to bind after dispose, while its steps live on", () => {
    const other = hotset.planSync(search.scan, axes, { rows: "f32" });
    const step = other.bind(inputs());
    other.dispose();
    expect(code(() => other.bind(inputs()))).toBe("disposed");
    expect(step.run().ids[0]).toBe(2);
  });
});

describe("a step", () => {
  it("returns the same output arrays at every run", () => {
    const step = plan.bind(inputs());
    expect(step.run()).toBe(step.run());
    expect(step.outputs.ids[0]).toBe(2);
  });

  it("takes smaller sizes of live axes, and leaves the rest of the outputs alone", () => {
    const ids = new Int32Array(6).fill(77);
    const step = plan.bind(inputs(), { ids });
    step.set("batch", 1).set("count", 2).run();
    expect([...ids]).toEqual([expect.any(Number), expect.any(Number), -1, 77, 77, 77]);
    expect([...step.outputs.found]).toEqual([2, 0]);
    expect(code(() => step.set("count", 21))).toBe("shape");
    expect(code(() => step.set("dim" as never, 2))).toBe("argument");
  });

  it("says which buffer was transferred away, and recovers", async () => {
    const given = inputs();
    const step = plan.bind(given);
    structuredClone(given.rows, { transfer: [given.rows.buffer] });
    expect(code(() => step.run())).toBe("detached");
    expect(() => step.run()).toThrow(/rows to keep its 80 elements but received 0: its buffer was transferred/);
    expect(await codeOf(() => step.runAsync())).toBe("detached");
    expect(plan.bind(inputs()).run().ids[0]).toBe(2);
  });

  it("copies what could be transferred away during an asynchronous run", async () => {
    const given = inputs();
    const step = plan.bind(given);
    const running = step.runAsync();
    structuredClone(given.rows, { transfer: [given.rows.buffer] });
    expect((await running).ids[0]).toBe(2);
  });

  it("rejects when an output was transferred away meanwhile", async () => {
    const ids = new Int32Array(6);
    const step = plan.bind(inputs(), { ids });
    const running = step.runAsync();
    structuredClone(ids, { transfer: [ids.buffer] });
    expect(await codeOf(() => running)).toBe("detached");
  });

  it("does one run at a time", async () => {
    const step = plan.bind(inputs());
    const running = step.runAsync();
    expect(code(() => step.run())).toBe("busy");
    expect(code(() => step.set("count", 3))).toBe("busy");
    expect(await codeOf(() => step.runAsync())).toBe("busy");
    await running;
    expect(step.run().ids[0]).toBe(2);
  });

  it("refuses everything after dispose", async () => {
    const step = plan.bind(inputs());
    step.dispose();
    step.dispose();
    expect(code(() => step.run())).toBe("disposed");
    expect(await codeOf(() => step.runAsync())).toBe("disposed");
  });

  it("rejects a run that is disposed of on its way", async () => {
    const step = plan.bind(inputs());
    const running = step.runAsync();
    step.dispose();
    expect(await codeOf(() => running)).toBe("disposed");
  });

  it("changes inout tensors in place, also asynchronously", async () => {
    const state = new Uint32Array(8 + 3 * 5);
    const step = hotset.planSync(kvCache.poolApply, { blocks: 5, count: 2 }, {}).bind({ state, commands: Uint32Array.from([0, 0, 0, 0]) });
    expect([...step.run().results]).toEqual([0, 1]);
    expect([...(await step.runAsync()).results]).toEqual([2, 3]);
    expect(state[2]).toBe(1);
  });
});

describe("tensors from alloc", () => {
  it("are bound without a copy, and refuse use after dispose", () => {
    const tensor = plan.alloc("rows");
    tensor.data.set(rows);
    expect([tensor.dtype, tensor.shape, tensor.backend]).toEqual(["f32", [20, 4], "js"]);
    expect(plan.bind({ ...inputs(), rows: tensor }).run().ids[0]).toBe(2);
    tensor.dispose();
    expect(code(() => tensor.data)).toBe("disposed");
  });
});

describe("falling back", () => {
  const withoutMemory: Backend = {
    ...js(),
    id: "wasm",
    target: "broken",
    name: "wasm without memory",
    features: [],
    threads: 1,
    inPlace: true,
    kernel: () => ({
      name: "none",
      deterministic: true,
      bind() {
        throw new HotsetError("memory", { where: "wasm", expected: "memory", received: "none" });
      },
    }),
    alloc: js().alloc,
    owns: () => false,
    probe: () => 1,
    dispose() {},
  };

  it("is done by auto, which says so; a named backend throws", async () => {
    const both = await createHotset({
      backends: [withoutMemory],
      constants: { wasm: { launchUs: 0.01, readGBs: [[1, 1000]], gflops: 1e5, copyGBs: 1e3, ops: {} } },
    });
    const auto = both.planSync(search.scan, axes, { rows: "f32" });
    expect(auto.backend).toBe("wasm");
    expect(auto.bind(inputs()).run().ids[0]).toBe(2);
    expect(auto.backend).toBe("js");
    expect(auto.why).toMatch(/^fell back from wasm \(wasm: expected memory but received none\): js/);
    const named = both.planSync(search.scan, axes, { rows: "f32" }, { backend: "wasm" });
    expect(code(() => named.bind(inputs()))).toBe("memory");
  });
});
