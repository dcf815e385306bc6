// Builds everything that is not built yet or older than its sources: the addons, the wasm modules, TypeScript.
import { copyFileSync, existsSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { root, run, stage } from "./lib.mjs";

/** Time of the newest file below the given paths; 0 where there is none. */
function newest(paths) {
  let latest = 0;
  for (const path of paths) {
    if (!existsSync(path)) continue;
    const info = statSync(path);
    if (!info.isDirectory()) latest = Math.max(latest, info.mtimeMs);
    else for (const entry of readdirSync(path)) if (entry !== "node_modules") latest = Math.max(latest, newest([join(path, entry)]));
  }
  return latest;
}

export const packages = ["core", "hotset", "kernels-cuda", "kernels-native", "kernels-wasm", "kernels-webgpu"];
const inPackage = (name) => (path) => join(root, "packages", name, path);

function oldest(paths) {
  return Math.min(...paths.map((path) => newest([path])));
}

/** CUDA takes more than a minute: it is built for machines that have a driver, and for the `tests`, which emulate one. */
export async function build({ always = false, tests = false } = {}) {
  const native = inPackage("kernels-native");
  if (always || newest([native("prebuilds")]) < newest([native("src"), native("CMakeLists.txt"), join(root, "scripts/build-native.mjs")])) {
    const { buildNative } = await import("./build-native.mjs");
    await stage("build: native addon", async () => buildNative());
  }
  const cuda = inPackage("kernels-cuda");
  const { addonFile, buildCuda } = await import("./build-cuda.mjs");
  const sources = newest([cuda("src"), cuda("CMakeLists.txt"), native("src/gen"), join(root, "scripts/build-cuda.mjs")]);
  if (!tests && !always && !existsSync("/proc/driver/nvidia/version"))
    console.log("cuda: left out, because there is no NVIDIA driver (node scripts/build-cuda.mjs builds it, npm test too)");
  else
    for (const emulated of tests || always ? [false, true] : [false])
      if (always || newest([addonFile(emulated)]) < sources)
        await stage(`build: CUDA addon${emulated ? ", emulated" : ""}`, async () => buildCuda({ emulated }));
  await stage("build: TypeScript", async () => {
    const { status, output } = await run("tsc", ["-b", "tsconfig.build.json"]);
    if (status !== 0) throw new Error(`TypeScript:\n${output}`);
  });
  // npm packs only what lies in a package's own folder.
  for (const name of packages) copyFileSync(join(root, "LICENSE"), inPackage(name)("LICENSE"));
  copyFileSync(join(root, "README.md"), inPackage("hotset")("README.md"));
  const webgpu = inPackage("kernels-webgpu");
  if (always || oldest([webgpu("dist/embedded/shaders.js")]) < newest([webgpu("src"), join(root, "scripts/build-webgpu.mjs")])) {
    const { buildWebgpu } = await import("./build-webgpu.mjs");
    await stage("build: WGSL modules", async () => buildWebgpu());
  }
  // After TypeScript: it asks core how an op's id is spelt in code.
  const wasm = inPackage("kernels-wasm");
  if (always || oldest([wasm("dist/manifest.json")]) < newest([wasm("assembly"), join(root, "scripts/build-wasm.mjs")])) {
    const { buildWasm } = await import("./build-wasm.mjs");
    await stage("build: wasm modules", async () => buildWasm());
  }
}

/** Removes what builds make. */
export function clean() {
  for (const name of packages)
    for (const folder of ["dist", "build", "prebuilds"]) rmSync(join(root, "packages", name, folder), { recursive: true, force: true });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    if (process.argv.includes("--clean")) clean();
    await build({ always: process.argv.includes("--always") });
  } catch (error) {
    console.error(`build: ${error.message}`);
    process.exitCode = 1;
  }
}
