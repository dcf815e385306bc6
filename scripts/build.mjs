// Builds everything that is not built yet or older than its sources: the addons, the wasm modules, TypeScript.
import { copyFileSync, existsSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { addonFile } from "./build-cuda.mjs";
import { runner } from "./build-native.mjs";
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

/**
 * What is old is built side by side, after TypeScript, which scripts import. CUDA takes more than a minute: it is built for
 * machines that have a driver, and for the `tests`, which emulate one.
 */
export async function build({ always = false, tests = false, release = false } = {}) {
  await stage("build: TypeScript", async () => {
    const { status, output } = await run("tsc", ["-b", "tsconfig.build.json"]);
    if (status !== 0) throw new Error(`TypeScript:\n${output}`);
  });
  // npm packs only what lies in a package's own folder.
  for (const name of packages) copyFileSync(join(root, "LICENSE"), inPackage(name)("LICENSE"));
  copyFileSync(join(root, "README.md"), inPackage("hotset")("README.md"));

  const [native, cuda, wasm, webgpu] = ["kernels-native", "kernels-cuda", "kernels-wasm", "kernels-webgpu"].map(inPackage);
  const cudaSources = [cuda("src"), cuda("CMakeLists.txt"), native("src/gen")];
  const withCuda = tests || always || existsSync("/proc/driver/nvidia/version");
  if (!withCuda) console.log("cuda: left out, because there is no NVIDIA driver (node scripts/build-cuda.mjs builds it, npm test too)");
  const parts = [
    {
      name: "native addon",
      script: "build-native",
      arguments: tests || always || release ? ["--tests"] : [],
      made: tests ? runner : native("prebuilds"),
      from: [native("src"), native("CMakeLists.txt")],
    },
    {
      name: "wasm modules",
      script: "build-wasm",
      arguments: release ? ["--release"] : [],
      made: wasm("dist/manifest.json"),
      from: [wasm("assembly")],
    },
    { name: "WGSL modules", script: "build-webgpu", made: webgpu("dist/embedded/shaders.js"), from: [webgpu("src")] },
    ...(withCuda ? [{ name: "CUDA addon", script: "build-cuda", made: addonFile(false), from: cudaSources }] : []),
    ...(tests || always
      ? [{ name: "CUDA addon, emulated", script: "build-cuda", arguments: ["--emulated"], made: addonFile(true), from: cudaSources }]
      : []),
  ];
  await Promise.all(
    parts.map(async ({ name, script, arguments: more = [], made, from }) => {
      const file = join(root, "scripts", `${script}.mjs`);
      if (!always && newest([made]) >= newest([...from, file])) return;
      await stage(`build: ${name}`, async () => {
        const { status, output } = await run(process.execPath, [file, ...more]);
        process.stdout.write(output);
        if (status !== 0) throw new Error(`${name} could not be built`);
      });
    }),
  );
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
