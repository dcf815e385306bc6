/** `hotset calibrate`: measures this machine and keeps the result in the user's cache folder. */
import { type CalibrationCase, calibrate, type MachineConstants } from "@hotset/core";
import { checkCacheFolder, machineKey, writeConstants } from "@hotset/core/node";
import { ops } from "@hotset/core/ops";
import { casesOf, Random } from "@hotset/core/testing/cases";
import { findHotset, version } from "../discover.js";
import type { CommonOptions } from "./index.js";
import { print, progress, table } from "./output.js";

export async function calibrateCommand({ json }: CommonOptions): Promise<void> {
  const hotset = await findHotset();
  const key = machineKey(hotset.backends, version);
  checkCacheFolder(key);
  const bar = progress(json);
  // The bar is drawn between steps: give the terminal a turn.
  const constants = await calibrate(hotset.backends, await calibrationCases(), async ({ backend, what, done, total }) => {
    bar.step(done, total, `${backend}: ${what}`);
    await new Promise((resolve) => setImmediate(resolve));
  });
  bar.stop();
  const path = writeConstants(key, constants);
  print(json, { path, constants }, () => `${describeConstants(constants)}\n\nWritten to ${path}.`);
  hotset.dispose();
}

/** The bench cases that are marked for it, in the first and the last of their variants: shares are of an op as a whole. */
export async function calibrationCases(): Promise<CalibrationCase[]> {
  const out: CalibrationCase[] = [];
  for (const op of ops) {
    for (const { name, axes, variants, inputs, calibrate: marked } of (await casesOf(op)).bench) {
      if (!marked) continue;
      for (const variant of new Set([variants[0], variants.at(-1)]))
        if (variant) out.push({ op, axes, variant, inputs: () => inputs({ axes, variant, random: new Random(name) }) });
    }
  }
  return out;
}

export function describeConstants(constants: MachineConstants): string {
  const share = (value: number | undefined): string => (value === undefined ? "-" : `${(100 * value).toFixed(0)} %`);
  const rows = Object.entries(constants).map(([backend, { launchUs, readGBs, gflops, copyGBs, ops: shares }]) => [
    backend,
    launchUs.toFixed(2),
    readGBs.map(([, rate]) => rate.toFixed(1)).join(" / "),
    gflops.toFixed(1),
    copyGBs.toFixed(1),
    Object.entries(shares)
      .map(([op, { bandwidth, compute }]) => `${op} ${share(bandwidth)} / ${share(compute)}`)
      .join(", "),
  ]);
  return table(
    [["backend", "launch us", "read GB/s", "GFLOP/s", "copy GB/s", "share of bandwidth / arithmetic reached"], ...rows],
    [1, 2, 3, 4],
  );
}
