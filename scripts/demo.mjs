// `npm run demo`: sets up what is missing, then runs the demo. Flags after `--` go to it.
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { root } from "./lib.mjs";
import { setup } from "./setup.mjs";

try {
  await setup();
  console.log();
  process.exitCode =
    spawnSync(process.execPath, [join(root, "examples/dist/demo/index.js"), ...process.argv.slice(2)], { stdio: "inherit" }).status ?? 1;
} catch (error) {
  console.error(`demo: ${error.message}`);
  process.exitCode = 1;
}
