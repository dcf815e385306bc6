/** Measuring this machine: what the choice between backends is made by. */
import type { Backend } from "./backend.js";
import type { HostArray } from "./dtype.js";
import { type BackendConstants, bandwidthAt, type MachineConstants, type OpShares } from "./machine.js";
import type { AnyAxes, AnyVariant, Op } from "./op/define.js";
import type { AxesOf, InputsOf, VariantOf } from "./op/types.js";
import { presentTensors } from "./op/variant.js";
import { makePlan } from "./plan.js";

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

const workingSets = [256 << 10, 8 << 20, 256 << 20];

/**
 * Measures every backend: launch, bandwidth at three working sets, arithmetic, copying, and the share of these
 * limits that each case reaches. A few seconds a backend; `progress` is called before each step.
 */
export async function calibrate(
  backends: readonly Backend[],
  cases: readonly CalibrationCase[],
  progress: (step: CalibrationStep) => void | Promise<void> = () => {},
): Promise<MachineConstants> {
  const constants: Record<string, BackendConstants> = {};
  const perBackend = workingSets.length + 3 + cases.length;
  let done = 0;
  for (const backend of backends) {
    const say = (what: string) => progress({ backend: backend.id, what, done: done++, total: perBackend * backends.length });
    const readGBs: [number, number][] = [];
    for (const bytes of workingSets) {
      await say(`read ${bytes >> 20 ? `${bytes >> 20} MiB` : `${bytes >> 10} KiB`}`);
      readGBs.push([bytes, backend.probe({ kind: "read", bytes })]);
    }
    await say("multiply-add");
    const gflops = backend.probe({ kind: "madd" });
    await say("copy");
    const copyGBs = backend.probe({ kind: "copy", bytes: 64 << 20 });
    await say("launch");
    const base: BackendConstants = { launchUs: launch(backend, cases), readGBs, gflops, copyGBs, ops: {} };
    const shares: Record<string, { bandwidth: number[]; compute: number[] }> = {};
    for (const work of cases) {
      await say(`${work.op.id} ${Object.values(work.axes).join(" x ")}`);
      const us = timeOf(backend, work);
      if (us === undefined) continue;
      const { bytes, flops } = work.op.cost(work.axes, work.variant);
      const memoryUs = bytes / (bandwidthAt(readGBs, bytes) * 1e3);
      const computeUs = flops / (gflops * 1e3);
      const entry = shares[work.op.id] ?? { bandwidth: [], compute: [] };
      shares[work.op.id] = entry;
      entry[memoryUs >= computeUs ? "bandwidth" : "compute"].push(Math.max(memoryUs, computeUs) / Math.max(us - base.launchUs, us / 2));
    }
    constants[backend.id] = { ...base, ops: Object.fromEntries(Object.entries(shares).map(([id, entry]) => [id, sharesOf(entry)])) };
  }
  return constants;
}

/** Where only one of the two limits was met, the other is assumed to be reached as well as it. */
function sharesOf({ bandwidth, compute }: { bandwidth: number[]; compute: number[] }): OpShares {
  const middle = (values: number[]): number | undefined => values.sort((a, b) => a - b)[values.length >> 1];
  const [b, c] = [middle(bandwidth), middle(compute)];
  return { bandwidth: b ?? c ?? 0.5, compute: c ?? b ?? 0.5 };
}

/** Median microseconds of a bound run; undefined where the backend has no kernel for it. */
function timeOf(backend: Backend, { op, axes, variant, inputs }: CalibrationCase): number | undefined {
  if (typeof backend.kernel({ op, axes, variant }) === "string") return undefined;
  const plan = makePlan({ backends: [backend], missing: [], constants: {} }, op, axes as AxesOf<Op>, variant as VariantOf<Op>, {
    backend: backend.id,
  });
  const tensors: Record<string, unknown> = {};
  const given = inputs();
  for (const name of presentTensors(op, variant)) {
    const tensor = plan.alloc(name as never) as unknown as { data: Uint8Array };
    if (given[name]) tensor.data.set(given[name] as Uint8Array);
    tensors[name] = tensor;
  }
  const inputNames = presentTensors(op, variant).filter((name) => given[name]);
  const outputs = Object.fromEntries(Object.entries(tensors).filter(([name]) => !given[name]));
  const step = plan.bind(Object.fromEntries(inputNames.map((name) => [name, tensors[name]])) as InputsOf<Op>, outputs);
  try {
    return medianUs(() => step.run(), 150);
  } finally {
    step.dispose();
    for (const tensor of Object.values(tensors)) (tensor as { dispose(): void }).dispose();
  }
}

/** The time of the smallest live run of the first case that the backend runs: no work, all overhead. */
function launch(backend: Backend, cases: readonly CalibrationCase[]): number {
  for (const { op, axes, variant } of cases) {
    const live = Object.keys(op.axes).find((name) => op.axes[name]?.live);
    if (!live || typeof backend.kernel({ op, axes, variant }) === "string") continue;
    const small = Object.fromEntries(Object.keys(axes).map((name) => [name, Math.max(1, op.axes[name]?.min ?? 1)]));
    const plan = makePlan({ backends: [backend], missing: [], constants: {} }, op, small as AxesOf<Op>, variant as VariantOf<Op>, {
      backend: backend.id,
    });
    const names = presentTensors(op, variant);
    const tensors = Object.fromEntries(names.map((name) => [name, plan.alloc(name as never)]));
    const isOutput = (name: string) => (op.ports[name] as { role?: string }).role === "out";
    const step = plan.bind(
      Object.fromEntries(names.filter((name) => !isOutput(name)).map((name) => [name, tensors[name]])) as InputsOf<Op>,
      Object.fromEntries(names.filter(isOutput).map((name) => [name, tensors[name]])),
    );
    step.set(live as never, 0);
    try {
      return Math.max(
        0.01,
        medianUs(() => step.run(), 50),
      );
    } finally {
      step.dispose();
    }
  }
  return 1;
}

/** Median of runs for about so many milliseconds; short runs are timed in groups. */
function medianUs(run: () => void, milliseconds: number): number {
  run();
  let start = performance.now();
  run();
  const once = Math.max(performance.now() - start, 1e-4);
  const group = Math.max(1, Math.floor(0.2 / once));
  const times: number[] = [];
  const end = performance.now() + milliseconds;
  while (times.length < 3 || performance.now() < end) {
    start = performance.now();
    for (let i = 0; i < group; i++) run();
    times.push((performance.now() - start) / group);
  }
  times.sort((a, b) => a - b);
  return (times[times.length >> 1] as number) * 1e3;
}
