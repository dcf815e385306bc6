// Writes support.json from what the last `npm test` saw (.results/support), with date and device; rows of targets that
// did not run here stay as they are. `npm run support` after a test run on a machine whose results should be claimed.
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { cpus } from "node:os";
import { join } from "node:path";
import { root } from "./lib.mjs";

const { plannedRows } = await import("../packages/core/dist/testing/support-rows.js");
const path = join(root, "support.json");
const folder = join(root, ".results", "support");
const before = existsSync(path) ? JSON.parse(readFileSync(path, "utf8")) : [];
const seen = existsSync(folder) ? readdirSync(folder).flatMap((file) => JSON.parse(readFileSync(join(folder, file), "utf8"))) : [];
const key = ({ op, variant, target }) => `${op} | ${variant} | ${target}`;
const processor = cpus()[0]?.model.trim() ?? "unknown";
const deviceOf = (target) => {
  if (target === "native-neon" && process.arch !== "arm64") return "qemu-user (aarch64)";
  return `${target === "webgpu-swiftshader" ? "SwiftShader (Dawn) on " : ""}${processor}, Node ${process.versions.node}`;
};
const verified = (target) => ({ date: new Date().toISOString().slice(0, 10), device: deviceOf(target) });

// What runs on SwiftShader is claimed for real devices, and not verified until it has run on one.
const onDevices = [...before, ...seen]
  .filter(({ target }) => target === "webgpu-swiftshader")
  .map(({ op, variant, kernels, reason }) => ({ op, variant, target: "webgpu", ...(kernels ? { kernels } : { reason }) }))
  .filter((row) => !before.some((other) => key(other) === key(row) && other.verified));
const planned = [
  ...onDevices,
  ...plannedRows("cuda", ({ cpuByDesign }) => (cpuByDesign ? `cpu by design: ${cpuByDesign}` : "no CUDA kernel yet")),
].map((row) => ({ ...row, verified: null }));

const rows = new Map();
for (const row of [...before, ...planned, ...seen.map((row) => ({ ...row, verified: row.kernels ? verified(row.target) : null }))])
  rows.set(key(row), row);
const sorted = [...rows.values()].sort((a, b) => key(a).localeCompare(key(b), "en"));
writeFileSync(path, `[\n${sorted.map((row) => JSON.stringify(row)).join(",\n")}\n]\n`);
console.log(`support.json: ${sorted.length} rows, ${seen.length} of them seen in the last test run`);
