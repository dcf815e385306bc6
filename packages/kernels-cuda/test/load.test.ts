/** Loading, and what goes wrong: no device, a broken driver, a damaged addon, no memory, a device that is lost. */
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { Worker } from "node:worker_threads";
import { afterAll, describe, expect, it } from "vitest";
import { refused } from "../../../test/support/refused.js";
import { cuda } from "../dist/index.js";
import { emulated, emulatedAddon, gpu, realAddon } from "./devices.js";

const folder = mkdtempSync(join(tmpdir(), "hotset-cuda-"));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const entry = new URL("../dist/index.js", import.meta.url).href;
const core = import.meta.resolve("@hotset/core");
const shared = `
const { cuda } = await import(${JSON.stringify(entry)});
const { createHotset, attention } = await import(${JSON.stringify(core)});
const axes = { parts: 2, rows: 64, valueDim: 64 };
const inputs = { partOut: new Float32Array(2 * 64 * 64).fill(5), partLse: new Float32Array(128) };
const said = async (work) => { try { return await work() } catch (error) { return [error.name, error.code, error.message].join(" | ") } };
`;

/** Runs a program in a fresh Node, with the backend at hand. */
function node(source: string, env: Record<string, string> = {}, args: readonly string[] = []) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [...args, "--input-type=module", "-e", `${shared}\n${source}`], {
    encoding: "utf8",
    env: { ...process.env, ...env },
    timeout: 60_000,
  });
  return { status, lines: stdout.trim().split("\n"), stderr };
}

const script = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text);
  return join(folder, name);
};

describe.skipIf(!existsSync(realAddon) || gpu.missing === undefined)("the addon without a GPU (needs nvcc, and no GPU)", () => {
  it("says why there is no device", async () => {
    const error = await refused(() => cuda());
    expect(error.name).toBe("BackendLoadError");
    expect(error.message).toMatch(/^cuda: expected an NVIDIA GPU and its driver but received no device: cudaError\w+: .*driver 580/);
  });
});

describe.skipIf(emulated.missing)(`loading${emulated.missing ? ` (${emulated.missing})` : ""}`, () => {
  const load = (env: Record<string, string>, settings = "{ emulated: true }") =>
    node(`console.log(await said(async () => (await cuda(${settings})).name))`, env).lines[0];

  it("tells an old driver from a machine without a device, and counts devices", () => {
    expect(load({})).toBe("cuda emulated on the CPU");
    expect(load({ HOTSET_EMULATED_DEVICES: "-1" })).toMatch(
      /^BackendLoadError \| load \| .*no device: cudaErrorInsufficientDriver: CUDA driver version is insufficient/,
    );
    expect(load({ HOTSET_EMULATED_DEVICES: "0" })).toMatch(/no device: cudaErrorNoDevice: no CUDA-capable device is detected/);
    expect(load({}, "{ emulated: true, device: 3 }")).toMatch(/expected a device below 1 but received 3/);
    expect(load({}, "{ emulated: true, device: -1 }")).toMatch(/device to be a whole number of 0 or more but received -1/);
    expect(load({ HOTSET_EMULATED_DEVICES: "2" }, "{ emulated: true, device: 1 }")).toBe("cuda emulated on the CPU");
  });

  it("goes on without a device that cannot run a kernel", () => {
    expect(load({ HOTSET_EMULATED_LOSS: "0" })).toMatch(/expected emulated to run a kernel but received cudaErrorIllegalAddress/);
  });

  it("survives a driver that crashes, hangs or answers nonsense, each in a process of its own", async () => {
    const child = (name: string, text: string, more = {}) =>
      refused(() => cuda({ emulated: true, child: { script: script(name, text), ...more } }));
    const crashed = await child("crash.cjs", "process.abort()");
    expect([crashed.name, crashed.message]).toEqual([
      "BackendLoadError",
      expect.stringMatching(/^cuda: expected the addon to load and run in a process of its own but received a crash \(SIG\w+\)/),
    ]);
    expect((await child("hang.cjs", "setInterval(() => {}, 1000)", { timeout: 700 })).message).toMatch(/received no answer within 0.7 s/);
    expect((await child("nonsense.cjs", "console.log('hotset-cuda: {')")).message).toMatch(/received an end with status 0/);
    expect(
      (await child("late.cjs", "console.log('hotset-cuda: {\"description\":{}}'); process.kill(process.pid, 'SIGSEGV')")).message,
    ).toMatch(/received a crash \(SIGSEGV\)/);
    expect((await child("throw.cjs", "throw new Error('libcuda.so.1 is broken')")).message).toMatch(
      /an end with status 1: .*libcuda.so.1 is broken/,
    );
  });

  it("asks once a process, however often it loads", async () => {
    const asked = join(folder, "asked");
    const real = new URL("../dist/child.js", import.meta.url).href;
    const counting = script(
      "count.mjs",
      `import { appendFileSync } from "node:fs";\nappendFileSync(${JSON.stringify(asked)}, "x");\nawait import(${JSON.stringify(real)});`,
    );
    const settings = { emulated: true, child: { script: counting } };
    for (const backend of await Promise.all([cuda(settings), cuda(settings)])) backend.dispose();
    (await cuda(settings)).dispose();
    expect(readFileSync(asked, "utf8")).toBe("x");
  });

  describe("a damaged addon", () => {
    const damaged = async (change: (file: string) => void, listed = false) => {
      const copy = mkdtempSync(join(folder, "addon-"));
      cpSync(dirname(emulatedAddon), copy, { recursive: true });
      const file = join(copy, basename(emulatedAddon));
      change(file);
      const bytes = existsSync(file) ? readFileSync(file) : Buffer.alloc(0);
      const entry = { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") };
      if (listed) writeFileSync(join(copy, "manifest.json"), JSON.stringify({ [basename(file)]: entry }));
      return (await refused(() => cuda({ addon: file }))).message;
    };
    const cut = (file: string) => truncateSync(file, 16 << 10);

    it("is refused before it is loaded", async () => {
      expect(await damaged(cut)).toMatch(/hotset-cuda-emulated\.node: expected \d+ bytes but received \d+\. The package is damaged/);
      expect(
        await damaged((file) => {
          const bytes = readFileSync(file);
          bytes[5000] = (bytes[5000] as number) ^ 1;
          writeFileSync(file, bytes);
        }),
      ).toMatch(/expected sha256/);
      expect(await damaged((file) => rmSync(file))).toMatch(/expected a readable file/);
      expect(await damaged((file) => rmSync(join(file, "..", "manifest.json")))).toMatch(/the list of this package's files/);
    });

    it("ends the child at most, where its manifest says that it is whole", async () => {
      expect(await damaged(cut, true)).toMatch(/received (a crash \(SIG\w+\)|an end with status 1: )/);
      expect(await damaged((file) => writeFileSync(file, "no library"), true)).toMatch(
        /received an end with status 1: .*hotset-cuda-emulated\.node/,
      );
    });
  });
});

describe.skipIf(emulated.missing)(`a process with a device${emulated.missing ? ` (${emulated.missing})` : ""}`, () => {
  it("survives running out of memory", () => {
    const { lines, stderr } = node(
      `
      const backend = await cuda({ emulated: true });
      const held = [];
      const error = await said(() => { for (;;) held.push(backend.alloc(8 << 20)); });
      console.log(held.length, error);
      console.log(await said(() => backend.alloc(2 ** 52)));
      const hotset = await createHotset({ backends: [backend] });
      const plan = await hotset.plan(attention.merge, axes, {}, { backend: "cuda" });
      console.log((await plan.bind(inputs).runAsync()).out[0]);
      for (const memory of held) memory.release();
      backend.alloc(48 << 20).release();
      console.log("again");`,
      { HOTSET_EMULATED_MEMORY: String(60 << 20) },
    );
    expect(stderr).toBe("");
    expect(lines[0]).toMatch(
      /^7 HotsetError \| memory \| cuda memory: expected memory on emulated but received cudaErrorMemoryAllocation: out of memory\. Dispose/,
    );
    expect(lines.slice(1)).toEqual([expect.stringMatching(/^HotsetError \| memory/), "5", "again"]);
  });

  it("gives memory back: of steps and tensors that were disposed of, and of those that were forgotten", () => {
    const { lines, stderr } = node(
      `
      const hotset = await createHotset({ backends: [await cuda({ emulated: true })] });
      const plan = await hotset.plan(attention.merge, { ...axes, rows: 256 }, {}, { backend: "cuda" });
      const large = { partOut: new Float32Array(2 * 256 * 64).fill(5), partLse: new Float32Array(512) };
      for (let i = 0; i < 20; i++) { const step = plan.bind(large); await step.runAsync(); step.dispose(); }
      for (let i = 0; i < 60; i++) {
        hotset.alloc("f32", [1 << 18], "cuda");
        plan.bind({ partOut: plan.alloc("partOut"), partLse: plan.alloc("partLse") }, { out: plan.alloc("out"), lse: plan.alloc("lse") }).run();
        gc();
        await new Promise((resolve) => setTimeout(resolve, 1));
      }
      console.log("enough");`,
      { HOTSET_EMULATED_MEMORY: String(4 << 20) },
      ["--expose-gc"],
    );
    expect(stderr).toBe("");
    expect(lines).toEqual(["enough"]);
  });

  it("goes on with the CPU when the device is lost, and says why", () => {
    const { lines, stderr, status } = node(
      `
      const backend = await cuda({ emulated: true });
      const hotset = await createHotset({ backends: [backend] });
      const plan = await hotset.plan(attention.merge, axes, {}, { backend: "cuda" });
      const tensor = plan.alloc("partOut");
      const step = plan.bind(inputs);
      for (let i = 0; i < 3; i++) await step.runAsync();
      console.log(await said(() => step.runAsync()));
      console.log(backend.device.lost);
      for (const work of [() => step.runAsync(), () => step.done(), () => plan.bind(inputs), () => plan.alloc("out"), () => tensor.upload(inputs.partOut), () => tensor.download()])
        console.log((await said(work)).split(" | ")[1]);
      console.log(await said(() => hotset.plan(attention.merge, axes, {}, { backend: "cuda" })));
      console.log((await hotset.call(attention.merge, { ...inputs, ...axes })).out[0]);
      step.dispose(); tensor.dispose(); hotset.dispose();
      console.log(await said(() => cuda({ emulated: true })));`,
      { HOTSET_EMULATED_LOSS: "3" },
    );
    expect([stderr, status]).toEqual(["", 0]);
    expect(lines[0]).toMatch(/^HotsetError \| device \| .*cuda to have its device but received one that was lost: cudaErrorIllegalAddress/);
    expect(lines[1]).toBe("cudaErrorIllegalAddress: an illegal memory access was encountered");
    expect(lines.slice(2, 8)).toEqual(Array(6).fill("device"));
    expect(lines[8]).toMatch(/its device was lost: cudaErrorIllegalAddress/);
    expect(lines[9]).toBe("5");
    expect(lines[10]).toMatch(/^BackendLoadError \| load \| .*received .*cudaErrorIllegalAddress.*a new process/);
  });

  it("ends by itself: after what is awaited, and with a backend left open", () => {
    const { lines, status, stderr } = node(`
      const hotset = await createHotset({ backends: [await cuda({ emulated: true })] });
      const plan = await hotset.plan(attention.merge, axes, {}, { backend: "cuda" });
      plan.bind(inputs).runAsync().then(({ out }) => console.log(out[0]));`);
    expect([lines, status, stderr]).toEqual([["5"], 0, ""]);
    const cut = node(`
      const hotset = await createHotset({ backends: [await cuda({ emulated: true })] });
      const plan = await hotset.plan(attention.merge, axes, {}, { backend: "cuda" });
      for (let i = 0; i < 50; i++) plan.bind(inputs).runAsync();
      process.exit(3);`);
    expect([cut.status, cut.stderr]).toEqual([3, ""]);
    const closed = node(`
      const backend = await cuda({ emulated: true });
      const memory = backend.alloc(1 << 20);
      const reading = memory.read(new Uint8Array(1 << 20));
      backend.dispose();
      await reading;
      console.log("read");`);
    expect([closed.lines, closed.status, closed.stderr]).toEqual([["read"], 0, ""]);
  });

  it("serves several JavaScript threads, which may end while they wait", async () => {
    const source = (then: string) => `
      const { parentPort } = require("node:worker_threads");
      (async () => {
        ${shared}
        const backend = await cuda({ emulated: true });
        const hotset = await createHotset({ backends: [backend] });
        const plan = await hotset.plan(attention.merge, axes, {}, { backend: "cuda" });
        const results = [];
        for (let i = 0; i < 20; i++) results.push((await plan.bind(inputs).runAsync()).out[i]);
        ${then}
      })();`;
    const start = (then: string) => new Worker(source(then), { eval: true });
    const message = (worker: Worker) => new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
    const answers = await Promise.all([1, 2, 3].map(() => message(start("parentPort.postMessage(results);"))));
    expect(answers).toEqual(Array(3).fill(Array(20).fill(5)));
    for (let i = 0; i < 3; i++) {
      const worker = start(
        "for (let i = 0; i < 100; i++) backend.alloc(1 << 20).read(new Uint8Array(1 << 20)); parentPort.postMessage('waiting');",
      );
      await message(worker);
      await worker.terminate();
    }
    const backend = await cuda({ emulated: true });
    await backend.alloc(16).read(new Uint8Array(16));
    backend.dispose();
  });
});
