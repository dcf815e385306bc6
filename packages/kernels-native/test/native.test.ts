import { execFileSync, spawn, spawnSync } from "node:child_process";
import { cpSync, mkdtempSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import { createHotset, search } from "@hotset/core";
import { describe, expect, it } from "vitest";
import { native, nativeIsas } from "../dist/index.js";

const here = fileURLToPath(new URL("..", import.meta.url));
const entry = new URL("../dist/index.js", import.meta.url).href;
const core = import.meta.resolve("@hotset/core");

const rows = Float32Array.from({ length: 4000 * 32 }, (_, i) => Math.sin(i * 0.71));
const inputs = () => ({ queries: rows.slice(320, 320 + 32), rows });
const axes = { batch: 1, count: 4000, dim: 32, k: 5 };

/** Runs a program in a fresh Node, with both packages at hand. */
function node(source: string, env: Record<string, string> = {}): { status: number | null; stdout: string; stderr: string } {
  const program = `import { native, nativeIsas } from ${JSON.stringify(entry)};\nimport { createHotset, search } from ${JSON.stringify(core)};\n${source}`;
  return spawnSync(process.execPath, ["--input-type=module", "-e", program], {
    encoding: "utf8",
    env: { ...process.env, ...env },
    timeout: 60_000,
  });
}

describe("the instruction set", () => {
  it("is the best one by default, and named", () => {
    const backend = native({ threads: 1 });
    expect(backend.target).toBe(process.env.HOTSET_ISA ?? nativeIsas()[0]);
    expect(backend.name).toBe(`native ${backend.target}, 1 thread`);
  });

  it("is forced by HOTSET_ISA", () => {
    const last = nativeIsas().at(-1) as string;
    expect(node("console.log(native().target)", { HOTSET_ISA: last }).stdout.trim()).toBe(last);
  });

  it("is never replaced by another: what the processor lacks, or nobody has, is an error", () => {
    expect(() => native({ isa: "mmx" })).toThrow(/expected an instruction set of .* but received mmx\. Check HOTSET_ISA/);
    const { stdout } = node("try { native() } catch (e) { console.log(e.name, e.message) }", { HOTSET_ISA: "altivec" });
    expect(stdout).toMatch(/^BackendLoadError native: expected an instruction set of/);
  });
});

describe("threads", () => {
  it("are set by HOTSET_THREADS, and refused when they are no number", () => {
    expect(node("console.log(native().threads)", { HOTSET_THREADS: "3" }).stdout.trim()).toBe("3");
    expect(node("try { native() } catch (e) { console.log(e.message) }", { HOTSET_THREADS: "none" }).stdout).toMatch(
      /HOTSET_THREADS: expected a whole number from 1 to 256 but received "none"/,
    );
  });

  it("serve several JavaScript threads at once, with the same results", async () => {
    const source = `
      const { parentPort } = require("node:worker_threads");
      (async () => {
        const { native } = await import(${JSON.stringify(entry)});
        const { createHotset, search } = await import(${JSON.stringify(core)});
        const rows = Float32Array.from({ length: ${axes.count * axes.dim} }, (_, i) => Math.sin(i * 0.71));
        const hotset = await createHotset({ backends: [native({ threads: 3 })] });
        const step = hotset.planSync(search.scan, ${JSON.stringify(axes)}, { rows: "f32" }).bind({ queries: rows.slice(320, 352), rows });
        const seen = new Set();
        for (let i = 0; i < 50; i++) seen.add(String(step.run().ids));
        for (let i = 0; i < 20; i++) seen.add(String((await step.runAsync()).ids));
        parentPort.postMessage([...seen]);
      })();`;
    const answers = await Promise.all(
      Array.from(
        { length: 4 },
        () => new Promise((resolve, reject) => new Worker(source, { eval: true }).once("message", resolve).once("error", reject)),
      ),
    );
    const hotset = await createHotset();
    const expected = String(hotset.planSync(search.scan, axes, { rows: "f32" }).bind(inputs()).run().ids);
    expect(answers).toEqual(Array.from({ length: 4 }, () => [expected]));
  });

  it("let a JavaScript thread end while its work is running", async () => {
    const source = `
      (async () => {
        const { native } = await import(${JSON.stringify(entry)});
        const { createHotset, search } = await import(${JSON.stringify(core)});
        const hotset = await createHotset({ backends: [native({ threads: 2 })] });
        const rows = new Float32Array(2e7).fill(0.5);
        const step = hotset.planSync(search.scan, { batch: 8, count: 2e5, dim: 100, k: 10 }, { rows: "f32" }).bind({ queries: rows.slice(0, 800), rows });
        step.runAsync();
        require("node:worker_threads").parentPort.postMessage("started");
      })();`;
    for (let i = 0; i < 3; i++) {
      const worker = new Worker(source, { eval: true });
      await new Promise((resolve, reject) => worker.once("message", resolve).once("error", reject));
      await worker.terminate();
    }
    const hotset = await createHotset({ backends: [native({ threads: 2 })] });
    expect(hotset.planSync(search.scan, axes, { rows: "f32" }, { backend: "native" }).bind(inputs()).run().ids[0]).toBe(10);
  });
});

describe("asynchronous runs", () => {
  it("leave the event loop free, and let the process end by itself", () => {
    const { stdout, status } = node(`
      const rows = new Float32Array(4e7).map((_, i) => (i * 7919) % 1000);
      const hotset = await createHotset({ backends: [native({ threads: 2 })] });
      const step = hotset.planSync(search.scan, { batch: 24, count: 4e5, dim: 100, k: 10 }, { rows: "f32" }, { backend: "native" }).bind({ queries: rows.slice(0, 2400), rows });
      await step.runAsync();
      let ticks = 0;
      const timer = setInterval(() => ticks++, 1);
      await step.runAsync();
      clearInterval(timer);
      console.log(ticks > 1 ? "free" : "blocked", [...step.outputs.found].every((n) => n === 10));`);
    expect(stdout.trim()).toBe("free true");
    expect(status).toBe(0);
  });

  it("can be many at once", async () => {
    const hotset = await createHotset({ backends: [native({ threads: 2 })] });
    const plan = hotset.planSync(search.scan, axes, { rows: "f32" }, { backend: "native" });
    const steps = Array.from({ length: 12 }, () => plan.bind(inputs()));
    const results = await Promise.all(steps.map((step) => step.runAsync()));
    expect(results.map(({ ids }) => ids[0])).toEqual(Array.from({ length: 12 }, () => 10));
    for (const step of steps) step.dispose();
  });

  it("end before what they use is released", async () => {
    const hotset = await createHotset({ backends: [native({ threads: 2 })] });
    const step = hotset.planSync(search.scan, axes, { rows: "f32" }, { backend: "native" }).bind(inputs());
    const running = step.runAsync();
    step.dispose();
    await expect(running).rejects.toThrow(/disposed/);
  });
});

describe("a damaged addon", () => {
  const damaged = (change: (file: string) => void): string => {
    const copy = mkdtempSync(join(tmpdir(), "hotset-native-"));
    cpSync(join(here, "dist"), join(copy, "dist"), { recursive: true });
    cpSync(join(here, "prebuilds"), join(copy, "prebuilds"), { recursive: true });
    cpSync(join(here, "package.json"), join(copy, "package.json"));
    // The copy finds @hotset/core through a loader hook-free import map: a node_modules link.
    execFileSync("mkdir", ["-p", join(copy, "node_modules", "@hotset")]);
    execFileSync("ln", ["-s", fileURLToPath(new URL("../../core", import.meta.url)), join(copy, "node_modules", "@hotset", "core")]);
    const [folder] = readdirSync(join(copy, "prebuilds")) as [string];
    change(join(copy, "prebuilds", folder, "hotset.node"));
    const source = `import(${JSON.stringify(`file://${copy}/dist/index.js`)}).then(({ native }) => { try { native(); console.log("loaded") } catch (e) { console.log(e.name, e.message) } })`;
    const { stdout } = spawnSync(process.execPath, ["--input-type=module", "-e", source], { encoding: "utf8" });
    rmSync(copy, { recursive: true });
    return stdout;
  };

  it("is refused before it is loaded: truncated", () => {
    expect(damaged((file) => truncateSync(file, readFileSync(file).length >> 1))).toMatch(
      /^BackendLoadError .*hotset\.node: expected \d+ bytes but received \d+\. The package is damaged: install it again/,
    );
  });

  it("is refused before it is loaded: changed", () => {
    const flip = (file: string): void => {
      const bytes = readFileSync(file);
      bytes[5000] = (bytes[5000] as number) ^ 1;
      writeFileSync(file, bytes);
    };
    expect(damaged(flip)).toMatch(/expected sha256/);
  });

  it("is refused where there is none for this platform", () => {
    expect(damaged((file) => rmSync(join(file, ".."), { recursive: true }))).toMatch(
      /BackendLoadError .*: expected what was built for this platform but received no such folder/,
    );
  });
});

describe("the binary", () => {
  it.skipIf(process.platform !== "linux")("asks for no library newer than glibc 2.28's time", () => {
    const file = join(here, "prebuilds", readdirSync(join(here, "prebuilds"))[0] as string, "hotset.node");
    const symbols = execFileSync("objdump", ["-T", file], { encoding: "utf8" });
    const newest = (name: string): number =>
      Math.max(
        0,
        ...[...symbols.matchAll(new RegExp(`${name}_(\\d+)\\.(\\d+)(?:\\.(\\d+))?`, "g"))].map(
          ([, a, b, c]) => Number(a) * 1e4 + Number(b) * 100 + Number(c ?? 0),
        ),
      );
    expect(newest("GLIBC")).toBeLessThanOrEqual(22800);
    expect(newest("GLIBCXX")).toBeLessThanOrEqual(30425);
  });
});

describe("under load", () => {
  it("stays right while other processes hold the cores", async () => {
    const busy = Array.from({ length: 3 }, () =>
      spawn(process.execPath, ["-e", "for (const end = Date.now() + 4000; Date.now() < end; );"]),
    );
    const hotset = await createHotset({ backends: [native({ threads: 2 })] });
    const step = hotset.planSync(search.scan, axes, { rows: "f32" }, { backend: "native" }).bind(inputs());
    const first = String(step.run().ids);
    for (let i = 0; i < 300; i++) expect(String(step.run().ids)).toBe(first);
    for (const process of busy) process.kill();
  });
});
