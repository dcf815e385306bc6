// Writes support.json from what the last `npm test` saw (.results/support), with date and device; rows of targets that
// did not run here stay as they are, except those of variants that no longer exist. `npm run support` after a test run on
// a machine whose results should be claimed.
// `node scripts/support.mjs --from FOLDER`: from what scripts/gpu-check saw on its machine (gpu-check.json) instead.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { variantKey, variants } from "../packages/core/dist/op/variant.js";
import { ops } from "../packages/core/dist/ops.js";
import { root } from "./lib.mjs";

const path = join(root, "support.json");
const folder = join(root, ".results", "support");
const existing = new Set(ops.flatMap((op) => variants(op).map((variant) => `${op.id} | ${variantKey(op, variant)}`)));
const exists = ({ op, variant }) => existing.has(`${op} | ${variant}`);
const before = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")).filter(exists) : [];
const from = process.argv.indexOf("--from");
const seen =
  from > 0
    ? seenElsewhere(process.argv[from + 1])
    : existsSync(folder)
      ? readdirSync(folder).flatMap((file) => JSON.parse(readFileSync(join(folder, file), "utf8")))
      : [];
const key = ({ op, variant, target }) => `${op} | ${variant} | ${target}`;
const processor = cpus()[0]?.model.trim() ?? "unknown";
/** Columns of devices drawn by the CPU: what stands in, and the column of the real ones. */
const standIns = {
  "webgpu-swiftshader": { name: "SwiftShader (Dawn)", real: "webgpu" },
  "cuda-emulated": { name: "the emulation of CUDA", real: "cuda" },
};
const deviceOf = (target) => {
  if (target === "native-neon" && process.arch !== "arm64") return "qemu-user (aarch64)";
  return `${standIns[target] ? `${standIns[target].name} on ` : ""}${processor}, Node ${process.versions.node}`;
};
const verified = (target) => ({ date: new Date().toISOString().slice(0, 10), device: deviceOf(target) });

// What runs on a stand-in is claimed for real devices, and not verified until it has run on one.
const planned = [...before, ...seen]
  .filter(({ target }) => standIns[target])
  .map(({ op, variant, target, kernels, reason }) => ({
    op,
    variant,
    target: standIns[target].real,
    ...(kernels ? { kernels } : { reason }),
  }))
  .filter((row) => !before.some((other) => key(other) === key(row) && other.verified))
  .map((row) => ({ ...row, verified: null }));

const rows = new Map();
for (const row of [
  ...before,
  ...planned,
  ...seen.map((row) => ({ ...row, verified: row.verified ?? (row.kernels && from < 0 ? verified(row.target) : null) })),
])
  rows.set(key(row), row);
const sorted = [...rows.values()].sort((a, b) => key(a).localeCompare(key(b), "en"));
writeFileSync(path, `[\n${sorted.map((row) => JSON.stringify(row)).join(",\n")}\n]\n`);
console.log(`support.json: ${sorted.length} rows, ${seen.length} of them seen in the last test run`);

/** Rows of gpu-check for known targets that ran as a whole and passed, with its date and device. Trials are refused. */
function seenElsewhere(folder) {
  const { date, tiny, kit, parts } = JSON.parse(readFileSync(join(folder, "gpu-check.json"), "utf8"));
  if (tiny || kit.emulated) throw new Error(`${folder} is of a trial, not of a real run`);
  return Object.values(parts).flatMap(({ suites = [] }) =>
    suites.flatMap(({ device, rows }) =>
      rows
        .filter(({ passed, target }) => passed && before.some((row) => row.target === target))
        .map(({ passed, ...row }) => ({ ...row, verified: row.kernels ? { date, device: `${device}, Node ${kit.node}` } : null })),
    ),
  );
}
