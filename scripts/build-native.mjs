// Builds the addon with cmake-js and puts it into prebuilds/<platform>-<arch>, stripped, with its manifest.
// Without a compiler it says so in one line and leaves the addon out. AVX-512 is left out where this processor cannot run it;
// `--tests`: every instruction set, and the case runner, from the same objects.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { has, installAddon } from "./lib.mjs";

const folder = fileURLToPath(new URL("../packages/kernels-native", import.meta.url));

export const runner = join(folder, "build", "hotset_runner");

export function buildNative({ tests = false } = {}) {
  const missing = [
    ["cmake", has("cmake")],
    ["a C++ compiler", has(process.env.CXX ?? "c++") || has("g++") || has("clang++") || process.platform === "win32"],
  ].filter(([, found]) => !found);
  if (missing.length) {
    console.log(`native: left out, because there is no ${missing.map(([name]) => name).join(" and no ")}`);
    return false;
  }
  const cmakeJs = join(dirname(createRequire(join(folder, "package.json")).resolve("cmake-js/package.json")), "bin", "cmake-js");
  const options = [
    `--CDHOTSET_ISAS=${tests || !lacksAvx512() ? "sse2,avx2,avx512" : "sse2,avx2"}`,
    `--CDHOTSET_RUNNER=${tests ? "ON" : "OFF"}`,
  ];
  // What was configured with other options before is configured again.
  for (const step of ["configure", "build"]) {
    const built = spawnSync(process.execPath, [cmakeJs, step, "--out", "build", ...options], { cwd: folder, encoding: "utf8" });
    if (built.status === 0) continue;
    console.error(built.stdout, built.stderr);
    throw new Error("native: the build failed");
  }
  installAddon(join(folder, "build", "Release", "hotset.node"), join(folder, "prebuilds", triple(), "hotset.node"), "native");
  return true;
}

function lacksAvx512() {
  try {
    return !/^flags.*\bavx512bw\b/m.test(readFileSync("/proc/cpuinfo", "utf8"));
  } catch {
    return false;
  }
}

function triple() {
  const musl = process.platform === "linux" && !process.report.getReport().header.glibcVersionRuntime ? "-musl" : "";
  return `${process.platform}-${process.arch}${musl}`;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) buildNative({ tests: process.argv.includes("--tests") });
