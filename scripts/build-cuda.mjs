// Builds the CUDA addon with nvcc into prebuilds/linux-x64, stripped, with its manifest; `--emulated` the one that runs
// the same kernels on the CPU, for tests, into build/emulated. Without the compiler it says so in one line and leaves the
// addon out. `--all-targets`: for every supported GPU, as releases have it (default: sm_90 alone).
import { spawnSync } from "node:child_process";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { has, installAddon } from "./lib.mjs";

const folder = fileURLToPath(new URL("../packages/kernels-cuda", import.meta.url));

/** Where the addon of either kind goes. */
export const addonFile = (emulated) =>
  emulated ? join(folder, "build/emulated/addon/hotset-cuda-emulated.node") : join(folder, "prebuilds/linux-x64/hotset-cuda.node");

/** Where the case runner is built, with `runner: true`. */
export const runnerFile = (emulated) => join(folder, "build", emulated ? "emulated" : "release", "hotset_cuda_runner");

export function buildCuda({ emulated = false, allTargets = false, runner = false } = {}) {
  const what = emulated ? "cuda (emulated)" : "cuda";
  const missing = [
    ["Linux on x64", process.platform === "linux" && process.arch === "x64"],
    ["cmake", has("cmake")],
    ["a C++ compiler", has(process.env.CXX ?? "c++") || has("g++")],
    ["nvcc", emulated || has(process.env.CUDACXX ?? "nvcc")],
  ].filter(([, found]) => !found);
  if (missing.length) {
    console.log(`${what}: left out, because there is no ${missing.map(([name]) => name).join(" and no ")}`);
    return false;
  }
  const build = join(folder, "build", emulated ? "emulated" : allTargets ? "release" : "sm_90");
  const flags = [`-DHOTSET_CUDA_EMULATED=${emulated ? "ON" : "OFF"}`, `-DHOTSET_ALL_TARGETS=${allTargets ? "ON" : "OFF"}`];
  flags.push(`-DHOTSET_RUNNER=${runner ? "ON" : "OFF"}`);
  must(what, "cmake", ["-S", folder, "-B", build, ...(has("ninja") ? ["-G", "Ninja"] : []), ...flags]);
  must(what, "cmake", ["--build", build, "--parallel"]);
  installAddon(join(build, basename(addonFile(emulated))), addonFile(emulated), what);
  return true;
}

function must(what, command, args) {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: folder, encoding: "utf8", maxBuffer: 64 << 20 });
  if (status === 0) return;
  console.error(stdout, stderr);
  throw new Error(`${what}: the build failed`);
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  buildCuda({ emulated: process.argv.includes("--emulated"), allTargets: process.argv.includes("--all-targets") });
