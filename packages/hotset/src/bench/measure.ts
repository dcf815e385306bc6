/** Timing one op on one backend: checked first, buffers rotated past the last-level cache, median and p95. */
import { existsSync, readFileSync } from "node:fs";
import type { AxesOf, Backend, Hotset, InputsOf, Op, OutputsOf, Step, Tensor, VariantOf } from "@hotset/core";
import { createHotset } from "@hotset/core";
import { type DType, type HostArray, isDevice, portDType, presentTensors, variantKey } from "@hotset/core/backend";
import { type BenchCase, difference, isExact, prepareSample } from "@hotset/core/testing/cases";
import { Bench } from "tinybench";
import type { Limits } from "./limits.js";
import { shareOfLimit } from "./limits.js";

export interface Row {
  readonly op: string;
  readonly case: string;
  readonly backend: string;
  readonly target: string;
  readonly kernel: string;
  readonly threads: number;
  readonly axes: Readonly<Record<string, number>>;
  readonly variant: string;
  /** The dtype of the port that has a choice, or of the first input. */
  readonly dtype: string;
  readonly medianUs: number;
  readonly p95Us: number;
  readonly runs: number;
  readonly gbPerS: number;
  readonly gflopPerS: number;
  readonly shareOfLimit: number;
  readonly boundBy: "bandwidth" | "arithmetic";
  /** How many copies of the inputs were cycled through. */
  readonly rotated: number;
}

export interface Skipped {
  readonly op: string;
  readonly case: string;
  readonly backend: string;
  readonly variant: string;
  readonly reason: string;
}

type Tensors = Readonly<Record<string, HostArray>>;

/** Bytes that the copies of the inputs may take together. */
const rotationBudget = 1.5 * 2 ** 30;

/** Times one case. Throws where the backend's result is wrong: a wrong result is not timed. */
export async function measure(
  op: Op,
  test: BenchCase,
  variant: VariantOf<Op>,
  backend: Backend,
  inputs: Tensors,
  limits: Limits,
  milliseconds: number,
): Promise<Row | Skipped> {
  const key = variantKey(op, variant);
  const kernel = backend.kernel({ op, axes: test.axes, variant });
  if (typeof kernel === "string") return { op: op.id, case: test.name, backend: backend.id, variant: key, reason: kernel };
  const hotset = await createHotset({ backends: [backend] });
  const steps = await rotated(hotset, op, test, variant, backend, inputs);
  try {
    await check(op, test, variant, backend, inputs, steps[0] as Rotated);
    const { medianUs, p95Us, runs } = await (isDevice(backend) ? timeQueued(steps, milliseconds) : time(() => next(steps), milliseconds));
    const { bytes, flops } = op.cost(test.axes, variant);
    const share = shareOfLimit(limits, backend.id, bytes, flops, medianUs);
    const typed = Object.keys(op.ports).find(
      (name) => (op.ports[name] as { kind: string }).kind === "tensor" && variant[name as keyof typeof variant] !== undefined,
    );
    return {
      op: op.id,
      case: test.name,
      backend: backend.id,
      target: backend.target,
      kernel: kernel.name,
      threads: backend.threads,
      axes: test.axes,
      variant: key,
      dtype: String(typed ? variant[typed as keyof typeof variant] : portDType(op, presentTensors(op, variant)[0] as string, variant)),
      medianUs,
      p95Us,
      runs,
      gbPerS: bytes / medianUs / 1e3,
      gflopPerS: flops / medianUs / 1e3,
      ...share,
      rotated: steps.length,
    };
  } finally {
    for (const { step } of steps) step.dispose();
  }
}

let turn = 0;
function next(steps: readonly Rotated[]): void {
  (steps[turn++ % steps.length] as Rotated).step.run();
}

/** A device: runs are queued together and waited for once, so that what is timed is the device and not the wait. */
async function timeQueued(steps: readonly Rotated[], milliseconds: number): Promise<{ medianUs: number; p95Us: number; runs: number }> {
  const once = await timed(steps, 2);
  const group = Math.max(1, Math.min(200, Math.floor(10_000 / once)));
  const samples: number[] = [];
  for (const end = performance.now() + milliseconds; samples.length < 5 || performance.now() < end; )
    samples.push(await timed(steps, group));
  samples.sort((a, b) => a - b);
  const at = (share: number): number => samples[Math.floor(share * (samples.length - 1))] as number;
  return { medianUs: at(0.5), p95Us: at(0.95), runs: samples.length * group };
}

async function timed(steps: readonly Rotated[], runs: number): Promise<number> {
  const start = performance.now();
  for (let i = 0; i < runs; i++) next(steps);
  await Promise.all(steps.map(({ step }) => step.done()));
  return ((performance.now() - start) * 1e3) / runs;
}

interface Rotated {
  readonly step: Step<Op>;
  /** Outputs that the host cannot see. */
  readonly outputs: Readonly<Record<string, Tensor>>;
}

/** Enough bound copies that a run never finds its inputs in the cache, as far as the budget allows. */
async function rotated(
  hotset: Hotset,
  op: Op,
  test: BenchCase,
  variant: VariantOf<Op>,
  backend: Backend,
  inputs: Tensors,
): Promise<Rotated[]> {
  const bytes = Object.values(inputs).reduce((sum, view) => sum + view.byteLength, 0);
  const wanted = Math.ceil((1.5 * lastLevelCache()) / Math.max(bytes, 1)) + 1;
  const copies = Math.max(1, Math.min(wanted, Math.floor(rotationBudget / Math.max(bytes, 1)), 64));
  const plan = await hotset.plan(op, test.axes as AxesOf<Op>, variant, { backend: backend.id });
  return Array.from({ length: copies }, () => {
    const tensors: Record<string, unknown> = {};
    for (const [name, data] of Object.entries(inputs)) {
      const tensor = plan.alloc(name as never) as unknown as Tensor;
      tensors[name] = tensor.upload(data as never);
    }
    const outputs: Record<string, Tensor> = {};
    if (isDevice(backend))
      for (const name of presentTensors(op, variant))
        if ((op.ports[name] as { role?: string }).role === "out") outputs[name] = plan.alloc(name as never) as unknown as Tensor;
    return { step: plan.bind(tensors as InputsOf<Op>, outputs as OutputsOf<Op>), outputs };
  });
}

/** Compares with the reference on the case's sample. */
async function check(
  op: Op,
  test: BenchCase,
  variant: VariantOf<Op>,
  backend: Backend,
  inputs: Tensors,
  { step, outputs }: Rotated,
): Promise<void> {
  const sample = prepareSample(op, test, variant, inputs);
  const ran = step.run() as unknown as Tensors;
  const got: Record<string, HostArray> = isDevice(backend) ? {} : { ...ran };
  for (const [name, tensor] of Object.entries(outputs)) got[name] = await tensor.download();
  const picked = sample.pick(got);
  for (const [name, expected] of Object.entries(sample.expected)) {
    if (!picked[name]) continue;
    const steps = isExact(backend) && op.exact ? 0 : (op.rounding(test.axes, variant)[name] ?? 0);
    const wrong = difference(
      name,
      portDType(op, name, variant) as DType,
      picked[name] as HostArray,
      expected,
      steps,
      sample.magnitude[name],
    );
    if (wrong) throw new Error(`${op.id}, ${test.name}, ${backend.name}: ${wrong}. A wrong result is not timed.`);
  }
}

/** Median, p95 and number of runs, by tinybench. */
export async function time(run: () => void, milliseconds: number): Promise<{ medianUs: number; p95Us: number; runs: number }> {
  const bench = new Bench({
    time: milliseconds,
    iterations: 5,
    warmupTime: Math.min(100, milliseconds / 4),
    warmupIterations: 2,
    retainSamples: true,
  });
  bench.add("run", run, { async: false });
  const [task] = await bench.run();
  const result = task?.result;
  if (!result || result.state === "errored" || !("latency" in result))
    throw result && "error" in result ? result.error : new Error("tinybench gave no result");
  const samples = [...(result.latency.samples ?? [])].sort((a, b) => a - b);
  return {
    medianUs: result.latency.p50 * 1e3,
    p95Us: (samples[Math.floor(0.95 * (samples.length - 1))] ?? result.latency.p99) * 1e3,
    runs: samples.length,
  };
}

/** Bytes of the last-level cache, as the system tells them; 32 MiB where it does not. */
export function lastLevelCache(): number {
  for (const index of [4, 3, 2]) {
    const path = `/sys/devices/system/cpu/cpu0/cache/index${index}/size`;
    if (!existsSync(path)) continue;
    const match = /^(\d+)([KM])/.exec(readFileSync(path, "utf8"));
    if (match) return Number(match[1]) * (match[2] === "K" ? 2 ** 10 : 2 ** 20);
  }
  return 32 << 20;
}
