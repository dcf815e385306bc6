import { spawn, spawnSync } from "node:child_process";
import { cpSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { createHotset, type HotsetError, search } from "@hotset/core";
import { describe, expect, it } from "vitest";
import { wasm, wasmBuilds } from "../dist/node.js";

const here = fileURLToPath(new URL("..", import.meta.url));
const entry = new URL("../dist/node.js", import.meta.url).href;
const core = import.meta.resolve("@hotset/core");

const axes = { batch: 1, count: 4000, dim: 64, k: 5 };
const rows = Float32Array.from({ length: axes.count * axes.dim }, (_, i) => Math.sin(i * 0.71));
const inputs = () => ({ queries: rows.slice(640, 640 + 64), rows });
const codeOf = (error: unknown) => (error as HotsetError).code;

// What the programs below begin with. A task is 512 KiB of rows: the one of `make` has two, so that helpers take part.
const imports = `import { wasm, wasmBuilds } from ${JSON.stringify(entry)};\nimport { createHotset, search } from ${JSON.stringify(core)};\n`;
const prelude = `${imports}
const make = async (settings, batch = 1) => {
  const rows = Float32Array.from({ length: 4000 * 64 }, (_, i) => Math.sin(i * 0.71));
  const hotset = await createHotset({ backends: [await wasm(settings)] });
  const plan = hotset.planSync(search.scan, { batch, count: 4000, dim: 64, k: 5 }, { rows: "f32" }, { backend: "wasm" });
  return { hotset, bind: () => plan.bind({ queries: rows.slice(640, 640 + 64 * batch), rows }) };
};
`;

/** Runs a program in a fresh Node, with both packages at hand. One that does not end has status null. */
function node(source: string, { env = {}, flags = [] as string[] } = {}): { status: number | null; stdout: string; stderr: string } {
  const settings = { encoding: "utf8", env: { ...process.env, ...env }, timeout: 40_000, killSignal: "SIGKILL" } as const;
  const { status, stdout, stderr } = spawnSync(process.execPath, [...flags, "--input-type=module", "-e", source], settings);
  return { status, stdout: stdout.trim(), stderr };
}

describe("the build", () => {
  it("is the best one by default, and named", async () => {
    const [best] = wasmBuilds();
    const backend = await wasm({ threads: 1 });
    expect(backend.target).toBe(`${best}-threads`);
    expect(backend.name).toBe(`wasm ${best}, 1 thread`);
    expect((await wasm({ threads: 3 })).name).toBe(`wasm ${best}, 3 threads`);
    const alone = await wasm({ build: "simd", threads: 3, shared: false });
    expect([alone.target, alone.name, alone.threads]).toEqual(["simd", "wasm simd, 1 thread (no threads: switched off)", 1]);
  });

  it("is never another than the one asked for", async () => {
    await expect(wasm({ build: "mmx" as "simd" })).rejects.toThrow(/expected a build of .*simd but received mmx\. Leave it out/);
    const without = (longest: number) => `const { validate } = WebAssembly;
      WebAssembly.validate = (bytes) => bytes.length < ${longest} && validate(bytes);
      ${imports.replaceAll(/import (.*) from (.*);/g, "const $1 = await import($2);")}
      console.log(wasmBuilds().join());
      await wasm({ build: "relaxed" }).catch(({ name, message }) => console.log(name, message));`;
    expect(node(without(70)).stdout).toMatch(
      /^simd\nBackendLoadError wasm: expected a build of simd but received relaxed\. .*no relaxed SIMD: Node 22 has/,
    );
    expect(node(without(0)).stdout).toMatch(/^BackendLoadError wasm: expected an engine with WebAssembly SIMD but .*Use Node 20,/);
  });

  it("is the next one where an engine computes wrongly", () => {
    const flags = wasmBuilds().includes("relaxed") ? [] : ["--experimental-wasm-relaxed-simd"];
    const source = `${imports}
      const { instantiate } = WebAssembly;
      WebAssembly.instantiate = async (...args) => {
        WebAssembly.instantiate = instantiate;
        const { module, instance } = await instantiate(...args);
        return { module, instance: { exports: { ...instance.exports, self_check: () => 3 } } };
      };
      console.log((await wasm({ threads: 1 })).name);`;
    expect(node(source, { flags }).stdout).toBe("wasm simd, 1 thread (no relaxed build: its self-check 3 gave a wrong result)");
  });
});

describe("threads", () => {
  it("are set by HOTSET_THREADS, and refused when they are no number", async () => {
    const source = `${imports} await wasm().then((b) => console.log(b.threads), (e) => console.log(e.message));`;
    expect(node(source, { env: { HOTSET_THREADS: "3" } }).stdout).toBe("3");
    const refused = /HOTSET_THREADS: expected a whole number from 1 to 256 but received "(none|0|1\.5|257)"/;
    for (const HOTSET_THREADS of ["none", "0", "1.5", "257"]) expect(node(source, { env: { HOTSET_THREADS } }).stdout).toMatch(refused);
    for (const threads of [0, -1, 2.5, 257, Number.NaN])
      await expect(wasm({ threads })).rejects.toThrow(/expected a whole number from 1 to 256/);
  });

  it("serve several JavaScript threads, each with a backend of its own, with the same results", async () => {
    const source = `import { parentPort } from "node:worker_threads"; ${prelude}
      const step = (await make({ threads: 3 })).bind();
      const seen = new Set();
      for (let i = 0; i < 50; i++) seen.add(String(step.run().ids));
      for (let i = 0; i < 20; i++) seen.add(String((await step.runAsync()).ids));
      parentPort.postMessage([...seen]);`;
    const url = new URL(`data:text/javascript,${encodeURIComponent(source)}`);
    const answer = () => new Promise((resolve, reject) => new Worker(url).once("message", resolve).once("error", reject));
    const answers = await Promise.all(Array.from({ length: 4 }, answer));
    const expected = String((await createHotset()).planSync(search.scan, axes, { rows: "f32" }).bind(inputs()).run().ids);
    expect(answers).toEqual(Array.from({ length: 4 }, () => [expected]));
  });

  it("let a JavaScript thread be terminated while its work is running", async () => {
    const source = `import { parentPort } from "node:worker_threads"; ${prelude}
      const { bind } = await make({ threads: 3 }, 64);
      const [one, other] = [bind(), bind()];
      parentPort.postMessage("started");
      for (;;) { const running = one.runAsync(); other.run(); await running; }`;
    for (let i = 0; i < 3; i++) {
      const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(source)}`));
      await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
      await new Promise((resolve) => setTimeout(resolve, 20 * i));
      await worker.terminate();
    }
    const hotset = await createHotset({ backends: [await wasm({ threads: 2 })] });
    expect(hotset.planSync(search.scan, axes, { rows: "f32" }, { backend: "wasm" }).bind(inputs()).run().ids[0]).toBe(10);
  });

  it.skipIf(process.platform !== "linux")("end with a backend that nothing can reach any more", () => {
    const source = `import { readdirSync } from "node:fs"; ${prelude}
      const threads = () => readdirSync("/proc/self/task").length;
      const settle = () => new Promise((resolve) => setTimeout(resolve, 20));
      const use = async () => { const { bind } = await make({ threads: 4 }); await bind().runAsync(); };
      // Three helpers each. Some may be collected before the end, and the engine may hold on to the frame of the last.
      await use();
      const few = threads() + 3;
      for (let i = 0; i < 6; i++) await use();
      for (let i = 0; i < 200 && threads() > few; i++) { gc(); await settle(); }
      console.log(threads() <= few);`;
    expect(node(source, { flags: ["--expose-gc"] }).stdout).toBe("true");
  });
});

describe("a process", () => {
  it.each([
    ["synchronous runs", "for (let i = 0; i < 9; i++) steps[0].run();", /^10$/],
    ["asynchronous runs", "for (let i = 0; i < 9; i++) await steps[0].runAsync();", /^10$/],
    ["both at once", "for (let i = 0; i < 9; i++) { const r = steps[0].runAsync(); steps[1].run(); await r; }", /^10$/],
    ["many asynchronous runs at once", "await Promise.all(steps.map((step) => step.runAsync()));", /^10$/],
    ["a run that nobody awaits", "steps[0].runAsync();", /^10$/],
    [
      "a dispose while something runs",
      "const r = steps[0].runAsync(); hotset.dispose(); await r.catch((e) => console.log(e.code));",
      /^disposed\n/,
    ],
    ["process.exit while something runs", "steps[0].runAsync(); process.exit();", /^0$/],
  ])("ends by itself after %s", (_, use, printed) => {
    for (let i = 0; i < 3; i++) {
      const { status, stdout, stderr } = node(`${prelude} const { hotset, bind } = await make({ threads: 3 }, 16);
        const steps = Array.from({ length: 6 }, bind);
        process.on("exit", () => console.log(steps[0].outputs.ids[0]));\n${use}`);
      expect([status, stderr]).toEqual([0, ""]);
      expect(stdout).toMatch(printed);
    }
  });

  it("lives on after runs at the end of its stack", () => {
    const { status, stdout, stderr } = node(`${prelude} const { bind } = await make({ threads: 3 }, 24);
      const steps = Array.from({ length: 60 }, bind);
      const seen = new Set();
      const deep = () => {
        try { deep(); } catch {}
        try { steps.pop()?.run(); } catch (error) { seen.add(error.name); }
      };
      deep();
      console.log(bind().run().ids[0], [...seen].join());`);
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/^10 .*RangeError/);
  });
});

describe("asynchronous runs", () => {
  it("leave the event loop free", async () => {
    const hotset = await createHotset({ backends: [await wasm({ threads: 2 })] });
    const plan = hotset.planSync(search.scan, { ...axes, batch: 1000 }, { rows: "f32" }, { backend: "wasm" });
    const step = plan.bind({ queries: rows.slice(0, 64_000), rows });
    await step.runAsync();
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    await step.runAsync();
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(1);
    expect(step.outputs.found.every((found) => found === axes.k)).toBe(true);
  });

  it("can be many at once, of several steps, between synchronous ones", async () => {
    const hotset = await createHotset({ backends: [await wasm({ threads: 3 })] });
    const plan = hotset.planSync(search.scan, axes, { rows: "f32" }, { backend: "wasm" });
    const steps = Array.from({ length: 12 }, () => plan.bind(inputs()));
    for (let round = 0; round < 5; round++) {
      const running = steps.map((step) => step.runAsync());
      const aside = plan.bind(inputs());
      expect(aside.run().ids[0]).toBe(10);
      expect((await Promise.all(running)).map(({ ids }) => String(ids))).toEqual(steps.map(() => String(aside.outputs.ids)));
      await expect(Promise.all([aside.runAsync(), aside.runAsync()])).rejects.toThrow(/whose runAsync has not ended/);
    }
  });

  it("end before what they use is released", async () => {
    const hotset = await createHotset({ backends: [await wasm({ threads: 2 })] });
    const step = hotset.planSync(search.scan, axes, { rows: "f32" }, { backend: "wasm" }).bind(inputs());
    const running = step.runAsync();
    step.dispose();
    expect(codeOf(await running.catch((error) => error))).toBe("disposed");
  });

  it("are refused by a backend that was disposed of, while synchronous ones go on alone", async () => {
    for (let i = 0; i < 10; i++) {
      const hotset = await createHotset({ backends: [await wasm({ threads: 3 })] });
      const plan = hotset.planSync(search.scan, { ...axes, batch: 16 }, { rows: "f32" }, { backend: "wasm" });
      const [idle, ...steps] = Array.from({ length: 4 }, () => plan.bind({ queries: rows.slice(640, 640 + 1024), rows }));
      const expected = String(idle?.run().ids);
      const running = steps.map((step) => step.runAsync().then(() => "done", codeOf));
      hotset.dispose();
      for (let run = 0; run < 3; run++) expect(String(idle?.run().ids)).toBe(expected);
      expect(await Promise.all(running)).toEqual(["disposed", "disposed", "disposed"]);
      expect(codeOf(await idle?.runAsync().catch((error) => error))).toBe("disposed");
      expect(String(idle?.run().ids)).toBe(expected);
    }
  });
});

describe("a damaged build", () => {
  const damaged = (change: (file: string) => void): string => {
    const copy = mkdtempSync(join(tmpdir(), "hotset-wasm-"));
    cpSync(join(here, "dist"), join(copy, "dist"), { recursive: true });
    cpSync(join(here, "package.json"), join(copy, "package.json"));
    mkdirSync(join(copy, "node_modules", "@hotset"), { recursive: true });
    symlinkSync(fileURLToPath(new URL("../../core", import.meta.url)), join(copy, "node_modules", "@hotset", "core"), "junction");
    for (const file of readdirSync(join(copy, "dist"))) if (file.endsWith(".wasm")) change(join(copy, "dist", file));
    const source = `const { wasm } = await import(${JSON.stringify(`file://${copy}/dist/node.js`)});
      await wasm().then(() => console.log("loaded"), ({ name, message }) => console.log(name, message));`;
    const { stdout } = node(source);
    rmSync(copy, { recursive: true });
    return stdout;
  };

  it("is refused before it is compiled: truncated, changed or missing", () => {
    expect(damaged(() => {})).toBe("loaded");
    expect(damaged((file) => truncateSync(file, readFileSync(file).length >> 1))).toMatch(
      /^BackendLoadError .*\.wasm: expected \d+ bytes but received \d+\. The package is damaged: install it again/,
    );
    const flip = (file: string): void => {
      const bytes = readFileSync(file);
      bytes[5000] = (bytes[5000] as number) ^ 1;
      writeFileSync(file, bytes);
    };
    expect(damaged(flip)).toMatch(/^BackendLoadError .*expected sha256/);
    expect(damaged(rmSync)).toMatch(/^BackendLoadError .*expected a readable file/);
  });
});

describe("under load", () => {
  it("stays right while other processes hold the cores", async () => {
    const busy = Array.from({ length: 3 }, () =>
      spawn(process.execPath, ["-e", "for (const end = Date.now() + 4000; Date.now() < end; );"]),
    );
    const hotset = await createHotset({ backends: [await wasm({ threads: 3 })] });
    const step = hotset.planSync(search.scan, axes, { rows: "f32" }, { backend: "wasm" }).bind(inputs());
    const first = String(step.run().ids);
    for (let i = 0; i < 200; i++) expect(String((i % 4 ? step.run() : await step.runAsync()).ids)).toBe(first);
    for (const process of busy) process.kill();
  });
});
