/** Measuring this machine: what the choice between backends is made by. */
import { type Backend, isDevice } from "./backend.js";
import type { HostArray } from "./dtype.js";
import { type BackendConstants, bandwidthAt, type MachineConstants, type OpShares } from "./machine.js";
import type { AnyAxes, AnyVariant, Op } from "./op/define.js";
import type { AxesOf, InputsOf, VariantOf } from "./op/types.js";
import { presentTensors } from "./op/variant.js";
import { type Plan, preparePlan } from "./plan.js";
import type { Step } from "./step.js";
import type { Tensor } from "./tensor.js";

/** Work that an op is measured by. */
export interface CalibrationCase {
  readonly op: Op;
  readonly axes: AnyAxes;
  readonly variant: AnyVariant;
  inputs(): Readonly<Record<string, HostArray>>;
}

export interface CalibrationStep {
  readonly backend: string;
  readonly what: string;
  readonly done: number;
  readonly total: number;
}

/** Work that a backend cannot do in this time at its limits is not measured there: js would take minutes over what is meant for others. */
const longestUs = 100_000;
const workingSets = [256 << 10, 8 << 20, 256 << 20];

/**
 * Measures every backend: launch, bandwidth at three working sets, arithmetic, copying, and the share of these
 * limits that each case reaches. A few seconds a backend; `progress` is called before each step. A device that is drawn
 * by the CPU is left out: nothing is ever chosen by its speed.
 */
export async function calibrate(
  backends: readonly Backend[],
  cases: readonly CalibrationCase[],
  progress: (step: CalibrationStep) => void | Promise<void> = () => {},
): Promise<MachineConstants> {
  const measured = backends.filter((backend) => !isDevice(backend) || !backend.device.software);
  const total = (workingSets.length + 3 + cases.length) * measured.length;
  let done = 0;
  const say = (backend: Backend, what: string) => progress({ backend: backend.id, what, done: done++, total });
  const limits = new Map<Backend, BackendConstants>();
  for (const backend of measured) {
    const readGBs: [number, number][] = [];
    for (const bytes of workingSets) {
      await say(backend, `read ${bytes >> 20 ? `${bytes >> 20} MiB` : `${bytes >> 10} KiB`}`);
      readGBs.push([bytes, await backend.probe({ kind: "read", bytes })]);
    }
    await say(backend, "multiply-add");
    const gflops = await backend.probe({ kind: "madd" });
    await say(backend, "copy");
    const copyGBs = await backend.probe({ kind: "copy", bytes: 64 << 20 });
    await say(backend, "launch");
    limits.set(backend, { ...(await launch(backend, cases)), readGBs, gflops, copyGBs, ops: {} });
  }
  const shares = new Map(measured.map((backend) => [backend, {} as Record<string, { bandwidth: number[]; compute: number[] }>]));
  for (const work of cases) {
    // Made once for all: that takes longer than most runs.
    const given = work.inputs();
    for (const backend of measured) {
      await say(backend, `${work.op.id} ${Object.values(work.axes).join(" x ")}`);
      const { readGBs, gflops, launchUs } = limits.get(backend) as BackendConstants;
      const { bytes, flops } = work.op.cost(work.axes, work.variant);
      const memoryUs = bytes / (bandwidthAt(readGBs, bytes) * 1e3);
      const computeUs = flops / (gflops * 1e3);
      if (Math.max(memoryUs, computeUs) > longestUs) continue;
      const us = await timeOf(backend, { ...work, inputs: () => given });
      if (us === undefined) continue;
      const ofBackend = shares.get(backend) as Record<string, { bandwidth: number[]; compute: number[] }>;
      ofBackend[work.op.id] ??= { bandwidth: [], compute: [] };
      ofBackend[work.op.id]?.[memoryUs >= computeUs ? "bandwidth" : "compute"].push(
        Math.max(memoryUs, computeUs) / Math.max(us - launchUs, us / 2),
      );
    }
  }
  return Object.fromEntries(
    measured.map((backend) => {
      const ops = Object.entries(shares.get(backend) ?? {}).map(([id, entry]) => [id, sharesOf(entry)]);
      return [backend.id, { ...(limits.get(backend) as BackendConstants), ops: Object.fromEntries(ops) }];
    }),
  );
}

/** Where only one of the two limits was met, the other is assumed to be reached as well as it. */
function sharesOf({ bandwidth, compute }: { bandwidth: number[]; compute: number[] }): OpShares {
  const middle = (values: number[]): number | undefined => values.sort((a, b) => a - b)[values.length >> 1];
  const [b, c] = [middle(bandwidth), middle(compute)];
  return { bandwidth: b ?? c ?? 0.5, compute: c ?? b ?? 0.5 };
}

/** A step of a case with every tensor in the backend's memory; undefined where there is no kernel for it. */
async function residentStep(
  backend: Backend,
  { op, axes, variant, inputs }: CalibrationCase,
): Promise<{ step: Step; outputs: readonly Tensor[]; release(): void } | undefined> {
  if (typeof backend.kernel({ op, axes, variant }) === "string") return undefined;
  const machine = { backends: [backend], missing: [], constants: {} };
  const plan: Plan = await preparePlan(machine, op, axes as AxesOf<Op>, variant as VariantOf<Op>, { backend: backend.id });
  const given = inputs();
  const tensors: Record<string, Tensor> = {};
  for (const name of presentTensors(op, variant)) {
    const tensor = plan.alloc(name as never) as unknown as Tensor;
    if (given[name]) tensor.upload(given[name] as never);
    tensors[name] = tensor;
  }
  const isOutput = (name: string) => (op.ports[name] as { role?: string }).role === "out";
  const part = (wanted: boolean) => Object.fromEntries(Object.entries(tensors).filter(([name]) => isOutput(name) === wanted));
  const step = plan.bind(part(false) as InputsOf<Op>, part(true));
  return {
    step,
    outputs: Object.values(part(true)) as Tensor[],
    release() {
      step.dispose();
      for (const tensor of Object.values(tensors)) tensor.dispose();
    },
  };
}

/** Median microseconds of a bound run; undefined where the backend has no kernel for it. */
async function timeOf(backend: Backend, work: CalibrationCase): Promise<number | undefined> {
  const bound = await residentStep(backend, work);
  if (!bound) return undefined;
  try {
    return await medianUs(bound.step, isDevice(backend), 150);
  } finally {
    bound.release();
  }
}

/** The time of the smallest live run of the first case that the backend runs: no work, all overhead; and of its readback. */
async function launch(backend: Backend, cases: readonly CalibrationCase[]): Promise<{ launchUs: number; readbackUs?: number }> {
  for (const { op, axes, variant } of cases) {
    const live = Object.keys(op.axes).find((name) => op.axes[name]?.live);
    if (!live) continue;
    const small = Object.fromEntries(Object.keys(axes).map((name) => [name, Math.max(1, op.axes[name]?.min ?? 1)]));
    const bound = await residentStep(backend, { op, axes: small, variant, inputs: () => ({}) });
    if (!bound) continue;
    bound.step.set(live as never, 0);
    try {
      const launchUs = Math.max(0.01, await medianUs(bound.step, isDevice(backend), 50));
      if (!isDevice(backend)) return { launchUs };
      const times: number[] = [];
      for (let i = 0; i < 15; i++) {
        const start = performance.now();
        bound.step.run();
        await bound.outputs[0]?.download();
        times.push((performance.now() - start) * 1e3);
      }
      times.sort((a, b) => a - b);
      return { launchUs, readbackUs: Math.max(1, (times[7] as number) - launchUs) };
    } finally {
      bound.release();
    }
  }
  return { launchUs: 1 };
}

/**
 * Median of runs for about so many milliseconds; short runs are timed in groups, those of a device with one wait a group.
 * Of runs that are longer than that (js on work meant for others) there are two, or one that took over a second.
 */
async function medianUs(step: Step, waits: boolean, milliseconds: number): Promise<number> {
  let start = performance.now();
  step.run();
  await step.done();
  const first = performance.now() - start;
  if (first > 1000) return first * 1e3;
  start = performance.now();
  step.run();
  if (waits) await step.done();
  const once = Math.max(performance.now() - start, 1e-4);
  if (once > milliseconds) return once * 1e3;
  const group = Math.max(1, Math.floor((waits ? 4 : 0.2) / once));
  const times: number[] = [];
  const end = performance.now() + milliseconds;
  while (times.length < 3 || performance.now() < end) {
    start = performance.now();
    for (let i = 0; i < group; i++) step.run();
    if (waits) await step.done();
    times.push((performance.now() - start) / group);
  }
  times.sort((a, b) => a - b);
  return (times[times.length >> 1] as number) * 1e3;
}
