// Installs the workspace and builds it, on a machine with Node and npm. Does nothing where that is already done.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "./build.mjs";
import { pnpm, root, run, stage } from "./lib.mjs";

const stamp = join(root, "node_modules", ".hotset-setup");

export async function setup({ always = false, tests = false } = {}) {
  const lock = readFileSync(join(root, "pnpm-lock.yaml"), "utf8");
  const installed = existsSync(stamp) && readFileSync(stamp, "utf8") === lock && existsSync(join(root, "node_modules", ".modules.yaml"));
  if (!installed || always) {
    await stage("install", async () => {
      const [command, ...args] = pnpm();
      // Without a terminal pnpm stops to ask before it replaces a node_modules of another version; CI=true answers.
      const { status, output } = await run(command, [...args, "install", "--frozen-lockfile"], { env: { CI: "true" } });
      if (status !== 0) throw new Error(`the packages could not be installed:\n${output.trim().split("\n").slice(-15).join("\n")}`);
      writeFileSync(stamp, lock);
    });
  }
  await build({ tests });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  try {
    await setup({ always: process.argv.includes("--always") });
  } catch (error) {
    console.error(`setup: ${error.message}`);
    process.exitCode = 1;
  }
}
