// What the scripts share: running commands, the pinned pnpm, and the root folder.
import { execFileSync, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { copyFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { basename, delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));

const windows = process.platform === "win32";

/** The environment for tools of the workspace: its binaries come first. */
export const environment = { ...process.env, PATH: `${join(root, "node_modules", ".bin")}${delimiter}${process.env.PATH}` };

export const has = (command, args = ["--version"]) =>
  spawnSync(command, args, { stdio: "ignore", env: environment, shell: windows }).status === 0;

/** Runs a command and returns { status, output }; `show` passes its output through as it comes. */
export function run(command, args, { show = false, env = {}, cwd = root, timeout } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command, args, {
      cwd,
      env: { ...environment, ...env },
      shell: windows,
      stdio: ["ignore", "pipe", "pipe"],
      timeout,
    });
    let output = "";
    for (const stream of [child.stdout, child.stderr])
      stream.on("data", (chunk) => {
        output += chunk;
        if (show) process.stdout.write(chunk);
      });
    child.on("error", (error) => resolve({ status: 127, output: String(error) }));
    child.on("close", (status) => resolve({ status: status ?? 1, output }));
  });
}

/** pnpm at exactly the version of package.json: the one installed, else by npx. */
export function pnpm() {
  const { packageManager } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const version = packageManager.split("@")[1].split("+")[0];
  const installed = spawnSync("pnpm", ["--version"], { encoding: "utf8", shell: windows, cwd: "/" });
  return installed.stdout?.trim() === version ? ["pnpm"] : ["npx", "--yes", `pnpm@${version}`];
}

/** One line, and the time it took. */
export async function stage(name, work) {
  const start = performance.now();
  const result = await work();
  console.log(`${name.padEnd(44)} ${((performance.now() - start) / 1e3).toFixed(1).padStart(6)} s`);
  return result;
}

/** manifest.json of these files of a folder, as packages/core/src/node/manifest.ts checks it. */
export function writeManifest(folder, names) {
  const entries = names.map((name) => {
    const bytes = readFileSync(join(folder, name));
    return [name, { bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") }];
  });
  writeFileSync(join(folder, "manifest.json"), `${JSON.stringify(Object.fromEntries(entries), null, 2)}\n`);
}

/** Copies an addon to its place, stripped, with its manifest. */
export function installAddon(built, target, what) {
  mkdirSync(dirname(target), { recursive: true });
  // A process that has the old file loaded keeps it.
  copyFileSync(built, `${target}.new`);
  if (process.platform === "linux") {
    try {
      execFileSync("strip", ["-x", `${target}.new`]);
    } catch {}
  }
  renameSync(`${target}.new`, target);
  writeManifest(dirname(target), [basename(target)]);
  console.log(`${what}: ${target} (${(readFileSync(target).length / 1024).toFixed(0)} KiB)`);
}
