// `npm test`: sets up what is missing, then every check, with the seconds of each stage. The last line counts.
// A part that this machine lacks (a browser, a cross compiler) is a named skip; with HOTSET_FULL=1 it fails instead.
//
//   npm test -- --only lint,unit                    some stages
//   npm test -- --conformance native-avx2           the conformance suite of one target; HOTSET_CASE narrows it to one case
import { cpSync, createWriteStream, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import { packages } from "./build.mjs";
import { runner } from "./build-native.mjs";
import { checkDeno, missingForDeno } from "./deno-check.mjs";
import { has, root, run, stage } from "./lib.mjs";
import { setup } from "./setup.mjs";

const full = process.env.HOTSET_FULL === "1";
const results = join(root, ".results");
const counts = { passed: 0, failed: 0, skipped: 0 };
const failures = [];
const skips = [];

/** A check that passes or fails as a whole. */
async function check(name, work, missing) {
  if (missing) {
    if (full) fail(name, `this run must have ${missing}`);
    else {
      counts.skipped++;
      skips.push(`${name}: no ${missing}`);
      console.log(`${name.padEnd(44)}   skipped: no ${missing}`);
    }
    return;
  }
  await stage(name, async () => {
    try {
      await work();
      counts.passed++;
    } catch (error) {
      fail(name, error.message);
    }
  });
}

function fail(name, why) {
  counts.failed++;
  failures.push(`${name}: ${why}`);
}

/** Runs a command; its output is the error. */
async function must(command, args, options) {
  const { status, output } = await run(command, args, options);
  if (status !== 0)
    throw new Error(`${command} ${args.slice(0, 3).join(" ")} ended with ${status}\n${output.trim().split("\n").slice(-40).join("\n")}`);
  return output;
}

const stages = {
  async lint() {
    await check("format and lint", () => must("biome", ["check", "--error-on-warnings", "."]));
    await check("generated files are current", () => must(process.execPath, ["scripts/gen.mjs", "--check"]));
    await check("types of the tests", () => must("tsc", ["-p", "tsconfig.tests.json"]));
  },

  unit: () => vitest("unit", "unit tests (vitest)"),

  conformance: () => vitest("conformance", "conformance on the CPU (vitest)"),

  webgpu: () => vitest("webgpu", "WebGPU on SwiftShader (vitest)"),

  async native() {
    const cmake = withoutCmake();
    const pack = join(results, "cases.pack");
    if (!cmake) await stage("case pack", () => writePack(pack));
    const sets = ["avx512", "avx2", "sse2"];
    const buildRunner = (name, ...flags) => runnerOf("native", name, "hotset_runner", flags);
    const replay = async (runner, threads, before = []) => {
      const [command, ...args] = [...before, runner, pack, "--threads", String(threads)];
      if (before.length) return must(command, args);
      let ran = 0;
      for (const isa of process.arch === "x64" ? sets : ["neon"]) {
        const { status, output } = await run(command, [...args, "--isa", isa]);
        if (status === 2 && output.includes("cannot run")) continue;
        if (status !== 0) throw new Error(`${isa}: ${output.trim().split("\n").slice(-25).join("\n")}`);
        ran++;
      }
      if (ran === 0) throw new Error("no instruction set ran");
    };
    await check(
      "C++: case pack on every instruction set",
      async () => {
        for (const threads of [1, 3]) await replay(runner, threads);
      },
      cmake,
    );
    await check(
      "C++: one instruction set cannot leak into another",
      () => noSharedCode(join(root, "packages/kernels-native/build")),
      cmake,
    );
    // One instruction set each: the wider vectors find what reads past an end, threads are the same in all.
    const sanitize = (kinds, isas) => buildRunner(kinds.replaceAll(",", "-"), `-DHOTSET_ISAS=${isas}`, ...sanitized(kinds));
    await check(
      "C++: under ASan and UBSan",
      async () => replay(await sanitize("address,undefined", hasAvx2() ? "avx2" : "sse2"), 2),
      cmake,
    );
    await check("C++: under TSan", async () => replay(await sanitize("thread", "sse2"), 4), cmake);
    const cross =
      cmake ??
      (process.arch === "x64" && has("aarch64-linux-gnu-g++") && has("qemu-aarch64")
        ? undefined
        : "aarch64-linux-gnu-g++ and qemu-aarch64");
    await check(
      "C++: case pack on NEON under qemu",
      async () => {
        const runner = await buildRunner(
          "neon",
          "-DCMAKE_SYSTEM_NAME=Linux",
          "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
          "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++",
          // Half the time to compile; what is tested is the arithmetic of NEON.
          "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG",
        );
        await replay(runner, 2, ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]);
        mkdirSync(join(results, "support"), { recursive: true });
        writeFileSync(
          join(results, "support", "native-neon.json"),
          await must("qemu-aarch64", ["-L", "/usr/aarch64-linux-gnu", runner, pack, "--json"]),
        );
      },
      cross,
    );
  },

  async cuda() {
    const cmake = withoutCmake();
    // A fiber a thread, with every access checked, takes its time: some cases of each variant. Conformance runs them all.
    const pack = join(results, "spread.pack");
    if (!cmake) await stage("case pack for CUDA", () => writePack(pack, { most: 5 }));
    await check(
      "CUDA: some of the case pack in the emulation, under ASan and UBSan",
      async () => {
        const kinds = "address,undefined";
        const flags = ["-DHOTSET_CUDA_EMULATED=ON", ...sanitized(kinds)];
        await must(await runnerOf("cuda", kinds.replaceAll(",", "-"), "hotset_cuda_runner", flags), [pack]);
      },
      cmake,
    );
  },

  async "gpu-check"() {
    const python = has("python3") ? undefined : "python3";
    await check("gpu-check: crashes, hangs, lost devices", () => must("python3", ["scripts/gpu/test_check.py"]), python);
    await check("gpu-check: a kit with the emulation, without Node", gpuCheck, python ?? withoutCmake());
  },

  async deno() {
    await check("WebGPU with f16 in Deno on lavapipe", () => checkDeno(), missingForDeno());
  },

  async packages() {
    for (const name of packages) {
      const cwd = join(root, "packages", name);
      await check(`publint: ${name}`, () => must("publint", ["--strict", "--pack", "npm"], { cwd }));
      await check(`are the types wrong: ${name}`, () => must("attw", ["--pack", ".", "--profile", "esm-only"], { cwd }));
    }
  },
};

/** The tests of one project of vitest.config.ts, each counted. */
async function vitest(project, title) {
  const report = join(results, `vitest-${project}.json`);
  rmSync(report, { force: true });
  await stage(title, async () => {
    const args = ["run", "--project", project, "--reporter=dot", "--reporter=json", `--outputFile.json=${report}`];
    const { status, output } = await run("vitest", args, {
      env: { HOTSET_RECORD: join(results, "support"), CI: "true", FORCE_COLOR: "0" },
    });
    if (!existsSync(report)) return fail(title, `it made no report (status ${status})\n${output.trim().split("\n").slice(-40).join("\n")}`);
    const { numPassedTests, numFailedTests, numPendingTests, numTodoTests, testResults } = JSON.parse(readFileSync(report, "utf8"));
    counts.passed += numPassedTests;
    counts.failed += numFailedTests;
    counts.skipped += numPendingTests + numTodoTests;
    for (const file of testResults) {
      if (file.status === "failed" && file.assertionResults.every(({ status: s }) => s !== "failed"))
        fail(file.name.replace(root, ""), file.message || "the file failed");
      for (const { status: s, fullName, failureMessages } of file.assertionResults) {
        if (s === "failed") failures.push(`${fullName}: ${failureMessages.join("\n").split("\n").slice(0, 12).join("\n")}`);
        if (s === "pending" || s === "skipped" || s === "todo") skips.push(fullName);
      }
    }
  });
}

/** Two at a time: whoever is free takes the next. What compiles on one thread comes first, what is short last. */
const queue = ["lint", "native", "unit", "cuda", "webgpu", "conformance", "deno", "packages"];
const sideBySide = 2;

const hasAvx2 = () => !existsSync("/proc/cpuinfo") || /^flags.*\bavx2\b/m.test(readFileSync("/proc/cpuinfo", "utf8"));
const withoutCmake = () => (has("cmake") && has("ninja") && has("c++") ? undefined : "cmake, ninja and a C++ compiler");

const sanitized = (kinds) => [
  `-DHOTSET_SANITIZE=${kinds}`,
  "-DCMAKE_BUILD_TYPE=RelWithDebInfo",
  "-DCMAKE_CXX_FLAGS_RELWITHDEBINFO=-O1 -g1",
];

/** Makes a kit, and runs it from an empty folder where no Node is found. */
async function gpuCheck() {
  const { makeKit } = await import("./gpu-kit.mjs");
  const folder = mkdtempSync(join(tmpdir(), "hotset-gpu-check-"));
  try {
    const kit = await makeKit({ emulated: true, out: join(folder, "kit.tar") });
    const tools = join(folder, "bin");
    mkdirSync(tools);
    // Not python3 as the path has it, which may be a script that looks for versions.
    symlinkSync((await must("python3", ["-c", "import sys; print(sys.executable)"])).trim(), join(tools, "python3"));
    for (const name of ["sh", "tar", "xz"]) symlinkSync((await must("sh", ["-c", `command -v ${name}`])).trim(), join(tools, name));
    cpSync(join(root, "scripts/gpu-check"), join(folder, "gpu-check"));
    cpSync(join(root, "scripts/gpu"), join(folder, "gpu"), { recursive: true });
    const out = join(folder, "out");
    const args = ["-i", `PATH=${tools}`, `HOME=${folder}`, "python3", "gpu-check", "--kit", kit, "--out", out, "--tiny"];
    const output = await must("env", args, { cwd: folder });
    const last = output.trim().split("\n").at(-1);
    if (!/^\d+ passed, 0 failed, \d+ skipped$/.test(last)) throw new Error(output);
    const { parts } = JSON.parse(readFileSync(join(out, "gpu-check.json"), "utf8"));
    for (const [part, least] of Object.entries({ cuda: 20, native: 20, bench: 20 }))
      if (parts[part].passed < least) throw new Error(`${part} passed ${parts[part].passed}, at least ${least} should\n${output}`);
    if (!readFileSync(join(out, "gpu-check.txt"), "utf8").includes("not a result")) throw new Error("a trial must say that it is one");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Builds the case runner of a package. */
async function runnerOf(id, name, file, flags) {
  const [source, build] = [join(root, `packages/kernels-${id}`), join(results, id, name)];
  await must("cmake", ["-S", source, "-B", build, "-G", "Ninja", "-DHOTSET_ADDON=OFF", "-DHOTSET_RUNNER=ON", ...flags]);
  await must("ninja", ["-C", build]);
  return join(build, file);
}

async function writePack(path, settings) {
  const { packCases } = await import("../packages/core/dist/testing/pack.js");
  mkdirSync(results, { recursive: true });
  const file = createWriteStream(path);
  for (const chunk of await packCases(settings)) file.write(chunk);
  file.end();
  await finished(file);
}

/** An inline function with one name in two instruction sets: the linker may keep the wrong copy. */
async function noSharedCode(build) {
  const { output } = await run("sh", [
    "-c",
    `for o in $(find '${build}' -path '*kernels_*' -name '*.o'); do nm -C "$o" | grep -E ' [WVu] ' | grep -vE 'hotset::(sse2|avx2|avx512|neon)' | sed "s|^|$(basename "$o"): |"; done; true`,
  ]);
  if (output.trim()) throw new Error(`these symbols are shared between instruction sets:\n${output}`);
}

async function oneConformance(target) {
  const [id, ...set] = target.split("-");
  const file = id === "js" ? "packages/core/test/conformance.test.ts" : `packages/kernels-${id}/test/conformance.test.ts`;
  const { status } = await run("vitest", ["run", file, "-t", `conformance of ${id} ${set.join("-")}`.replace("js js", "js")], {
    show: true,
  });
  process.exitCode = status;
}

const argument = (name) => {
  const at = process.argv.indexOf(name);
  return at < 0 ? undefined : process.argv[at + 1];
};

mkdirSync(results, { recursive: true });
try {
  await setup({ tests: true });
  const conformance = argument("--conformance");
  if (conformance) await oneConformance(conformance);
  else {
    const only = argument("--only")?.split(",");
    const waiting = queue.filter((name) => !only || only.includes(name));
    await Promise.all(
      Array.from({ length: sideBySide }, async () => {
        for (let name = waiting.shift(); name; name = waiting.shift()) await stages[name]();
      }),
    );
    if (skips.length)
      console.log(`\nSkipped, because this machine lacks something:\n${[...new Set(skips)].map((name) => `  ${name}`).join("\n")}`);
    if (failures.length) console.log(`\nFailed:\n${failures.map((text) => `  ${text}`).join("\n")}`);
    console.log(`\n${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
    process.exitCode = counts.failed > 0 || counts.passed === 0 ? 1 : 0;
  }
} catch (error) {
  console.error(`test: ${error.message}`);
  console.log(`\n${counts.passed} passed, ${counts.failed + 1} failed, ${counts.skipped} skipped`);
  process.exitCode = 1;
}
