import { readFile } from "node:fs/promises";
import { Worker } from "node:worker_threads";
import { describe, expect, it } from "vitest";
import { type Host, words, workerProgram } from "../dist/host.js";
import { type Instance, instantiate } from "../dist/instance.js";
import { bytesOfJob, faultAt, Job, type Runner, runJob } from "../dist/job.js";
import { Workers } from "../dist/workers.js";

// The pool with a kernel that can be made to trap: the probe multiplies what lies at `data`, each task in its part.
const paramsBytes = 20;
const madd = 1;
const outside = 0xffff0000;

const source = `${workerProgram}
const { parentPort, workerData } = require("node:worker_threads");
work(workerData, (value) => parentPort.postMessage(value));`;

const host: Host = {
  load: async (file) => new Uint8Array(await readFile(new URL(`../dist/${file}.wasm`, import.meta.url))),
  threads: (wanted) => wanted ?? 1,
  mayBlock: true,
  startsAside: true,
  noWorkers: undefined,
  startWorker(task, { message, failed }) {
    const worker = new Worker(source, { eval: true, workerData: task });
    worker.on("message", message).on("error", (error) => failed(error.message));
    worker.unref();
    return { hold: (pending) => (pending ? worker.ref() : worker.unref()), stop: () => worker.terminate() };
  },
};

async function pool(threads: number): Promise<{ runner: Runner; workers: Workers; job(part: number, steps: number): number }> {
  const { arena, exports, module } = (await instantiate(host, "simd", true, 1 << 20)) as Instance;
  const workers = new Workers(host, module, arena.memory, threads);
  const runner: Runner = { arena, exports, threads, together: 1, workers };
  workers.startHelpers();
  workers.waitForHelpers();
  const job = (part: number, steps: number): number => {
    const code = { op: exports.probe_number.value as number, paramsBytes, scratchBytes: 0 };
    const made = new Job(runner, threads, code, arena.alloc(bytesOfJob(threads, code), false));
    const fields = [madd, part, steps, arena.alloc(512 * threads, true), arena.alloc(4 * threads, true)];
    new Uint32Array(made.params.buffer, made.params.byteOffset, paramsBytes / 4).set(fields);
    return made.address;
  };
  return { runner, workers, job };
}

describe("a trap", () => {
  it("in a helper or in the caller leaves nobody asleep, and later jobs run without the pool", async () => {
    for (let i = 0; i < 12; i++) {
      const { runner, workers, job } = await pool(4);
      // Only the first task finds its data. Who takes it is busy or asleep when the others trap.
      const bad = job(outside / 3, i % 2 ? 1 : 2e6);
      let fault = 0;
      try {
        fault = runJob(runner, bad);
      } catch (error) {
        expect((error as Error).message).toMatch(/expected the kernel to finish but received memory access out of bounds\. Bind again/);
      }
      if (fault) expect(faultAt(runner, fault, [])).toEqual({ code: "internal", port: "?", index: 0, value: 3 });
      const good = job(512, 100);
      for (let run = 0; run < 5; run++) expect(runJob(runner, good)).toBe(0);
      workers.dispose();
    }
  });

  it("in the conductor rejects its job and those behind it", async () => {
    const { runner, workers, job } = await pool(3);
    const good = job(512, 100);
    expect(await workers.submit(good)).toBe(0);
    const outcomes = await Promise.allSettled([workers.submit(good), workers.submit(job(outside, 1000)), workers.submit(good)]);
    expect(outcomes[0]).toEqual({ status: "fulfilled", value: 0 });
    // Where helpers took all that trap, the conductor lives to report it.
    if (outcomes[1]?.status === "fulfilled") expect(outcomes[1].value).not.toBe(0);
    else for (const outcome of outcomes.slice(1)) expect(outcome).toMatchObject({ status: "rejected", reason: { code: "internal" } });
    expect(runJob(runner, good)).toBe(0);
    workers.dispose();
    await expect(workers.submit(good)).rejects.toThrow(/wasm: expected a live backend|expected a worker to run the kernel/);
  });
});

describe("the pool", () => {
  it("serves the caller and the conductor at once; whoever finds it at work runs alone", async () => {
    const { runner, workers, job } = await pool(5);
    const [mine, theirs] = [job(512, 20_000), job(512, 200_000)];
    for (let round = 0; round < 40; round++) {
      const running = workers.submit(theirs);
      for (let run = 0; run < 20; run++) expect(runJob(runner, mine)).toBe(0);
      expect(await running).toBe(0);
    }
    const state = new Int32Array(runner.arena.memory.buffer, 0, 512);
    expect([Atomics.load(state, words.busy), Atomics.load(state, words.broken), Atomics.load(state, words.request)]).toEqual([0, 0, 0]);
    workers.dispose();
  });

  it("does not wait for helpers that were stopped", async () => {
    for (let i = 0; i < 5; i++) {
      const { runner, workers, job } = await pool(4);
      const address = job(512, 1_000_000);
      expect(runJob(runner, address)).toBe(0);
      workers.dispose();
      for (let run = 0; run < 3; run++) expect(runJob(runner, address)).toBe(0);
      workers.waitForHelpers();
    }
  });

  it("says why no worker can be started", async () => {
    const { arena, module } = (await instantiate(host, "simd", true, 1 << 20)) as Instance;
    const startWorker = (): never => {
      throw new Error("no threads left");
    };
    const workers = new Workers({ ...host, startWorker }, module, arena.memory, 3);
    expect(await workers.helpersStarted()).toBe("no threads left");
    await expect(workers.submit(64)).rejects.toThrow(/expected a worker to run the kernel but received no threads left\. Use wasm\(/);
  });
});
