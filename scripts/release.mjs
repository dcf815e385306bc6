// `npm run release`: what goes to npm, made anew: every build, CUDA for all targets, and a tarball of each package in
// .cache/release. Publishing is `npm publish` of these files; `npm test` comes first.
import { mkdirSync, readdirSync, rmSync, statSync } from "node:fs";
import { join } from "node:path";
import { build, clean, packages } from "./build.mjs";
import { buildCuda } from "./build-cuda.mjs";
import { root, run, stage } from "./lib.mjs";

const folder = join(root, ".cache", "release");

try {
  clean();
  await build({ release: true });
  let complete = true;
  await stage("build: CUDA addon for all targets", async () => {
    complete = buildCuda({ allTargets: true });
  });
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  for (const name of packages) {
    if (name === "kernels-cuda" && !complete) continue;
    const { status, output } = await run("npm", ["pack", "--pack-destination", folder], { cwd: join(root, "packages", name) });
    if (status !== 0) throw new Error(`${name} could not be packed:\n${output}`);
  }
  for (const file of readdirSync(folder))
    console.log(`${(statSync(join(folder, file)).size / 2 ** 20).toFixed(2).padStart(8)} MiB  ${join(folder, file)}`);
  if (!complete) throw new Error("@hotset/kernels-cuda is missing: a release needs nvcc");
} catch (error) {
  console.error(`release: ${error.message}`);
  process.exitCode = 1;
}
