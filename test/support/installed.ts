/** The packages as a stranger gets them: packed by npm, installed into an empty project, no compiler on PATH. */
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("../..", import.meta.url));
const names = ["core", "hotset", "kernels-cuda", "kernels-native", "kernels-wasm", "kernels-webgpu"];

export interface Project {
  readonly folder: string;
  readonly tarballs: readonly string[];
  /** Runs a program there with nothing but node and npm on PATH. */
  run(command: string, args: readonly string[], env?: Record<string, string>): { status: number | null; stdout: string; stderr: string };
}

/** Packs, installs, and returns the project. Throws with npm's words when that fails. */
export function installPackages(): Project {
  const folder = mkdtempSync(join(tmpdir(), "hotset-project-"));
  const packed = join(folder, "tarballs");
  mkdirSync(packed);
  for (const name of names)
    execFileSync("npm", ["pack", "--silent", "--pack-destination", packed], {
      cwd: join(root, "packages", name),
      stdio: ["ignore", "ignore", "inherit"],
    });
  const tarballs = readdirSync(packed).map((file) => join(packed, file));

  const bin = join(folder, "bin");
  mkdirSync(bin);
  const npm = execFileSync("sh", ["-c", "command -v npm"], { encoding: "utf8" }).trim();
  symlinkSync(process.execPath, join(bin, "node"));
  symlinkSync(npm, join(bin, "npm"));
  symlinkSync("/bin/sh", join(bin, "sh"));
  const environment = Object.fromEntries(
    Object.entries(process.env).filter(([key]) => !/^(npm_|INIT_CWD|NODE_PATH|PNPM|VITEST|NODE_OPTIONS|HOTSET_)/i.test(key)),
  );
  const run: Project["run"] = (command, args, env = {}) => {
    const { status, stdout, stderr } = spawnSync(join(bin, command), args, {
      cwd: folder,
      encoding: "utf8",
      env: { ...environment, PATH: bin, HOTSET_CACHE_DIR: join(folder, "cache"), ...env },
      timeout: 300_000,
    });
    return { status, stdout, stderr };
  };
  writeFileSync(join(folder, "package.json"), JSON.stringify({ name: "stranger", private: true, type: "module" }));
  const installed = run("npm", ["install", "--no-audit", "--no-fund", ...tarballs]);
  if (installed.status !== 0) throw new Error(`npm install failed: ${installed.stderr}${installed.stdout}`);
  return { folder, tarballs, run };
}
