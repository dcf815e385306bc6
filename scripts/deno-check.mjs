// WebGPU in Deno (wgpu and Naga, the other compiler of WGSL) on lavapipe, which has shader-f16: a spread of the conformance
// cases of every op with a shader, those over f16 first. `node scripts/deno-check.mjs`; `npm test` runs it as a stage.
//
// Deno: HOTSET_DENO, or .cache/deno (npm i --prefix .cache/deno deno@2.9.6), or `deno` on the path. lavapipe: HOTSET_LAVAPIPE
// or .cache/lavapipe, a folder into which Debian's mesa-vulkan-drivers and libvulkan1 were unpacked; or where they are installed.
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { run } from "./lib.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
/** Of one op, at most; some 0.6 s each, nearly all of it compiling. */
const casesOfOp = 10;
/** With the tiles that a GPU gets, which are other shaders and take longer to compile. */
const casesOfGpuTiles = 3;
const gpuTiles = { threads: 128, queries: 8, columns: 32, results: 16 };

/** What this machine lacks for the check, or undefined. */
export function missingForDeno() {
  if (!deno()) return "deno";
  return lavapipe() ? undefined : "lavapipe";
}

/** Runs it; throws with what was wrong. */
export async function checkDeno() {
  const folder = mkdtempSync(join(tmpdir(), "hotset-lavapipe-"));
  try {
    const { manifest, libraries } = lavapipe();
    const driver = join(folder, "driver.json");
    writeFileSync(driver, JSON.stringify(manifest));
    const path = [...libraries, process.env.LD_LIBRARY_PATH].filter(Boolean).join(":");
    const { status, output } = await run(deno(), ["run", "-A", fileURLToPath(import.meta.url)], {
      timeout: 600_000,
      env: { LD_LIBRARY_PATH: path, VK_DRIVER_FILES: driver, XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? folder },
    });
    if (status !== 0) throw new Error(`Deno ended with ${status}\n${output.trim().split("\n").slice(-30).join("\n")}`);
    return output.trim();
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function deno() {
  const candidates = [process.env.HOTSET_DENO, join(root, ".cache/deno/node_modules/.bin/deno")].filter((path) => path && existsSync(path));
  if (candidates.length) return candidates[0];
  return spawnSync("deno", ["--version"], { stdio: "ignore" }).status === 0 ? "deno" : undefined;
}

/** The driver's manifest with its library's real place, and the folders that libraries are looked for in. */
function lavapipe() {
  for (const folder of [process.env.HOTSET_LAVAPIPE, join(root, ".cache/lavapipe"), "/"]) {
    const manifests = folder ? join(folder, "usr/share/vulkan/icd.d") : "";
    const file = existsSync(manifests) && readdirSync(manifests).find((name) => name.startsWith("lvp_icd"));
    if (!file) continue;
    const manifest = JSON.parse(readFileSync(join(manifests, file), "utf8"));
    const { library_path: library, ...rest } = manifest.ICD;
    if (library.startsWith("/")) manifest.ICD = { ...rest, library_path: join(folder, library) };
    const libraries = join(folder, "usr/lib");
    const machine = readdirSync(libraries).find((name) => existsSync(join(libraries, name, "libvulkan_lvp.so")));
    return { manifest, libraries: folder === "/" || !machine ? [] : [join(libraries, machine)] };
  }
  return undefined;
}

async function runCases() {
  const { webgpu, kernels } = await import("../packages/kernels-webgpu/dist/index.js");
  const { suiteOf } = await import("../packages/core/dist/testing/cases.js");
  const failures = [];
  const ran = new Set();
  let cases = 0;
  const spread = async (settings, ofOp, others) => {
    const backend = await webgpu(settings);
    if (!backend.features.includes("shader-f16")) throw new Error(`${backend.name} has no shader-f16`);
    const { items, coverage } = await suiteOf(backend);
    for (const op of Object.keys(kernels)) {
      const all = items.filter((item) => item.op.id === op);
      const half = all.filter(({ variant }) => Object.values(variant).includes("f16"));
      const from = half.length ? half : all;
      const step = Math.max(1, Math.ceil(from.length / ofOp));
      // One case of each other variant as well: they are other shaders.
      const rest = new Map(all.filter((item) => !from.includes(item)).map((item) => [Object.values(item.variant).join(), item]));
      for (const { name, run } of [...from.filter((_, i) => i % step === 0), ...(others ? rest.values() : [])]) {
        cases++;
        await run().catch((error) => failures.push(`${name}: ${error.message}`));
      }
    }
    for (const key of coverage.kernels.keys()) ran.add(key.split(" | ")[0]);
    backend.dispose();
    return backend.name;
  };
  const name = await spread({}, casesOfOp, true);
  await spread({ tunables: gpuTiles }, casesOfGpuTiles, false);
  const lacking = Object.keys(kernels).filter((op) => !ran.has(op));
  console.log(`${name}: ${cases} cases, ${failures.length} failed`);
  for (const failure of failures.slice(0, 5)) console.error(failure);
  if (failures.length || lacking.length) throw new Error(lacking.length ? `nothing ran of ${lacking.join(", ")}` : "cases failed");
}

if (typeof Deno !== "undefined") await runCases();
else if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const missing = missingForDeno();
  if (missing) {
    console.error(`deno-check: no ${missing}`);
    process.exitCode = 1;
  } else console.log(await checkDeno());
}
