/** `hotset bench`: the bench cases of every op on every backend. */
import { writeFileSync } from "node:fs";
import type { Backend, Op, VariantOf } from "@hotset/core";
import { isDevice } from "@hotset/core/backend";
import { ops } from "@hotset/core/ops";
import { casesOf, Random } from "@hotset/core/testing/cases";
import { type Limits, measureLimits } from "../bench/limits.js";
import { measure, type Row, type Skipped } from "../bench/measure.js";
import { peerRows } from "../bench/peers.js";
import { type Regret, regretOf } from "../bench/regret.js";
import { findHotset, version } from "../discover.js";
import type { CommonOptions } from "./index.js";
import { print, progress, table } from "./output.js";

interface BenchOptions extends CommonOptions {
  readonly op: string;
  readonly case?: string;
  readonly backend?: string;
  readonly time: string;
  readonly peers?: boolean;
  readonly selection?: boolean;
  readonly out?: string;
}

export async function bench(options: BenchOptions): Promise<void> {
  const milliseconds = Number(options.time);
  if (!(milliseconds > 0)) throw new Error(`bench: expected --time in milliseconds but received ${JSON.stringify(options.time)}`);
  const hotset = await findHotset();
  const backends = wanted(hotset.backends, options.backend);
  const work = await workList(options);
  if (work.length === 0)
    throw new Error(
      `bench: no case matches --op ${options.op}${options.case ? ` --case ${options.case}` : ""}; there are ${ops.map(({ id }) => id).join(", ")}`,
    );
  const bar = progress(options.json);
  bar.step(0, work.length * backends.length + 1, "limits of this machine");
  const limits = await measureLimits(backends);
  const rows: Row[] = [];
  const skipped: Skipped[] = [];
  let done = 1;
  for (const { op, test, variant } of work) {
    const inputs = test.inputs({ axes: test.axes, variant, random: new Random(test.name) });
    for (const backend of backends) {
      bar.step(done++, work.length * backends.length + 1, `${op.id}: ${test.name} on ${backend.id}`);
      await new Promise((resolve) => setImmediate(resolve));
      if (tooSlow(op, test.axes, variant, backend)) {
        skipped.push({ op: op.id, case: test.name, backend: backend.id, variant: "", reason: "it would take minutes" });
        continue;
      }
      const row = await measure(op, test, variant, backend, inputs, limits, milliseconds);
      if ("reason" in row) skipped.push(row);
      else rows.push(row);
    }
  }
  bar.stop();
  const peers = options.peers ? await peerRows(work, milliseconds) : undefined;
  const regret = options.selection ? regretOf(hotset, work, rows) : undefined;
  const document = {
    version,
    date: new Date().toISOString(),
    node: process.version,
    backends: backends.map(({ name }) => name),
    limits,
    rows,
    skipped,
    ...(peers ? { peers } : {}),
    ...(regret ? { regret } : {}),
  };
  if (options.out) writeFileSync(options.out, `${JSON.stringify(document, null, 2)}\n`);
  print(options.json, document, () =>
    [
      describeLimits(backends, limits),
      "",
      describeRows(rows),
      ...skippedText(skipped),
      ...(peers ? ["", peers.text] : []),
      ...(regret ? ["", describeRegret(regret)] : []),
    ].join("\n"),
  );
  hotset.dispose();
}

export interface Work {
  readonly op: Op;
  readonly test: Awaited<ReturnType<typeof casesOf>>["bench"][number];
  readonly variant: VariantOf<Op>;
}

async function workList({ op: glob, case: part }: BenchOptions): Promise<Work[]> {
  const pattern = new RegExp(
    `^${glob
      .split("*")
      .map((text) => text.replaceAll(/[.+?^${}()|[\]\\]/g, "\\$&"))
      .join(".*")}$`,
  );
  const work: Work[] = [];
  for (const op of ops.filter(({ id }) => pattern.test(id)))
    for (const test of (await casesOf(op)).bench)
      if (!part || test.name.includes(part))
        for (const variant of test.variants) work.push({ op, test, variant: variant as VariantOf<Op> });
  return work;
}

function wanted(backends: readonly Backend[], list: string | undefined): readonly Backend[] {
  // A GPU drawn by the CPU says nothing about GPUs, and takes minutes: only when it is named.
  if (!list) return backends.filter((backend) => !isDevice(backend) || !backend.device.software);
  return list.split(",").map((id) => {
    const backend = backends.find((candidate) => candidate.id === id);
    if (!backend)
      throw new Error(
        `bench: expected a backend of ${backends.map((candidate) => candidate.id).join(", ")} but received ${JSON.stringify(id)}`,
      );
    return backend;
  });
}

/** The reference would take a minute a run on the largest cases. */
const tooSlow = (op: Op, axes: Work["test"]["axes"], variant: VariantOf<Op>, backend: Backend): boolean =>
  backend.id === "js" && op.cost(axes, variant).flops > 3e9;

export function describeLimits(backends: readonly Backend[], limits: Limits): string {
  const rows = backends.map(({ id, name }) => [
    name,
    limits[id]?.readGBs.toFixed(1) ?? "-",
    limits[id]?.gflops.toFixed(1) ?? "-",
    Number.isNaN(limits[id]?.gops) ? "-" : (limits[id]?.gops.toFixed(1) ?? "-"),
  ]);
  return `Limits, measured in this run through each backend's own code:\n${table([["", "read GB/s", "multiply-add GFLOP/s", "i8 Gop/s"], ...rows], [1, 2, 3])}`;
}

export function describeRows(rows: readonly Row[]): string {
  const lines = rows.map((row) => [
    row.op,
    row.case,
    row.variant,
    row.backend,
    row.kernel,
    us(row.medianUs),
    us(row.p95Us),
    row.gbPerS.toFixed(1),
    row.gflopPerS.toFixed(1),
    `${(100 * row.shareOfLimit).toFixed(0)} %`,
    row.boundBy,
  ]);
  return table(
    [["op", "case", "variant", "backend", "kernel", "median us", "p95 us", "GB/s", "GFLOP/s", "of limit", "bound by"], ...lines],
    [5, 6, 7, 8, 9],
  );
}

const us = (value: number): string => (value < 100 ? value.toFixed(2) : value.toFixed(0));

function skippedText(skipped: readonly Skipped[]): string[] {
  if (skipped.length === 0) return [];
  return ["", ...skipped.map(({ op, case: name, backend, reason }) => `not run: ${op}, ${name} on ${backend}: ${reason}`)];
}

function describeRegret({ rows, median, worst }: Regret): string {
  const lines = rows.map(({ case: name, variant, chosen, best, regret }) => [name, variant, chosen, best, regret.toFixed(2)]);
  return [
    "Choice between backends, on cases that the constants were not fitted to (time of the chosen over time of the best):",
    table([["case", "variant", "chosen", "best", "regret"], ...lines], [4]),
    `median ${median.toFixed(2)}, worst ${worst.toFixed(2)}`,
  ].join("\n");
}
