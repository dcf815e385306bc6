/** Running a case on a backend, with everything a kernel can do wrong watched. */
import { type Backend, isDevice } from "../backend.js";
import type { HostArray } from "../dtype.js";
import { HotsetError } from "../errors.js";
import type { AnyAxes, AnyVariant, Op, TensorPort } from "../op/define.js";
import type { AxesOf, InputsOf, OutputsOf, VariantOf } from "../op/types.js";
import { preparePlan } from "../plan.js";
import { faultError, type Step } from "../step.js";
import type { OpCases, Runner, Tensors } from "./case.js";
import { firstOtherBits } from "./compare.js";
import { type Guarded, guarded, type Placement } from "./guard.js";
import { dtypeOf, judge, type Prepared } from "./prepared.js";
import { type ResidentTensors, residentTensors } from "./resident.js";

export interface Outcome {
  /** The kernel that ran, or the backend's reason why none did. */
  readonly kernel?: string;
  readonly reason?: string;
  /** What was wrong; empty when all was right. */
  readonly problems: readonly string[];
}

/** Host backends owe equal bits for exact ops; devices are judged by tolerance. */
export const isExact = (backend: Backend): boolean => !isDevice(backend);

export async function runCase(backend: Backend, prepared: Prepared, cases: OpCases, placement: Placement, shift: number): Promise<Outcome> {
  const { op, axes, variant } = prepared;
  const kernel = backend.kernel({ op, axes, variant });
  if (typeof kernel === "string") return { reason: kernel, problems: [] };
  const problems: string[] = [];
  const say = (problem: string | undefined, when: string) => problem && problems.push(`${problem} [${when}, ${kernel.name}, ${placement}]`);

  const buffers: Record<string, Guarded> = {};
  const plan = await preparePlan({ backends: [backend], missing: [], constants: {} }, op, axes as AxesOf<Op>, variant as VariantOf<Op>, {
    backend: backend.id,
  });
  let step: Step | undefined;
  let resident: ResidentTensors | undefined;
  try {
    for (const [name, data] of Object.entries({ ...prepared.expected, ...prepared.inputs }))
      buffers[name] = guarded(backend, placement, dtypeOf(op, name, variant), data.length, shift);
    step = plan.bind(...tensorArguments(prepared, buffers), prepared.scalars);
    for (const [name, size] of Object.entries(prepared.test.live ?? {})) step.set(name, size);

    const runs: [when: string, run: () => unknown][] = isDevice(backend)
      ? [["runAsync", () => step?.runAsync()]]
      : [
          ["run", () => step?.run()],
          ["run again", () => step?.run()],
          ["runAsync", () => step?.runAsync()],
        ];
    if (isDevice(backend)) {
      resident = residentTensors(backend, plan, prepared);
      runs.push(["run, done and download", () => resident?.run()]);
    }
    let first: Tensors | undefined;
    for (const [when, run] of runs) {
      reset(prepared, buffers);
      say(await faultProblem(prepared, run), when);
      const [got, wrong] = run === runs[1]?.[1] && resident ? resident.outcome() : [copies(prepared, buffers), undefined];
      say(wrong, when);
      if (first === undefined) {
        first = got;
        say(judge(prepared, cases, got, isExact(backend)), when);
        say(untouched(prepared, got), when);
      } else if (plan.deterministic) say(sameBits(first, got), when);
      else say(judge(prepared, cases, got, isExact(backend)), when);
      for (const [name, buffer] of Object.entries(buffers)) say(buffer.broken() && `${name} was written ${buffer.broken()}`, when);
      for (const [name, data] of Object.entries(prepared.inputs))
        if ((op.ports[name] as TensorPort).role === "in" && firstOtherBits(buffers[name]?.view as HostArray, data) >= 0)
          say(`input ${name} was written`, when);
    }
  } finally {
    step?.dispose();
    resident?.release();
    for (const buffer of Object.values(buffers)) buffer.release();
  }
  return { kernel: plan.kernel, problems };
}

/** For laws: runs the op on plain arrays. */
export function runnerOn(backend: Backend, op: Op): Runner {
  return async (axes: AnyAxes, variant: AnyVariant, inputs: Tensors, scalars: Readonly<Record<string, number>> = {}) => {
    const plan = await preparePlan({ backends: [backend], missing: [], constants: {} }, op, axes as AxesOf<Op>, variant as VariantOf<Op>, {
      backend: backend.id,
    });
    const own = Object.fromEntries(
      Object.entries(inputs).map(([name, data]) => [name, { data: data.slice(), dtype: dtypeOf(op, name, variant) }]),
    );
    const step = plan.bind(own as InputsOf<Op>, {}, scalars);
    try {
      const outputs = (isDevice(backend) ? await step.runAsync() : step.run()) as unknown as Tensors;
      const changed = Object.entries(own).filter(([name]) => (op.ports[name] as TensorPort).role === "inout");
      return { ...outputs, ...Object.fromEntries(changed.map(([name, { data }]) => [name, data])) };
    } finally {
      step.dispose();
    }
  };
}

function tensorArguments(
  { op, variant, inputs, expected, pitch }: Prepared,
  buffers: Readonly<Record<string, Guarded>>,
): [InputsOf<Op>, OutputsOf<Op>] {
  const value = (name: string) => ({
    data: buffers[name]?.view,
    dtype: dtypeOf(op, name, variant),
    ...(pitch[name] ? { rowPitch: pitch[name] } : {}),
  });
  const outputs = Object.keys(expected).filter((name) => !(name in inputs));
  return [
    Object.fromEntries(Object.keys(inputs).map((name) => [name, value(name)])) as InputsOf<Op>,
    Object.fromEntries(outputs.map((name) => [name, value(name)])) as OutputsOf<Op>,
  ];
}

function reset({ inputs, expected }: Prepared, buffers: Readonly<Record<string, Guarded>>): void {
  for (const [name, buffer] of Object.entries(buffers)) {
    if (name in inputs) (buffer.view as Uint8Array).set(inputs[name] as Uint8Array);
    else if (name in expected) buffer.poison();
  }
}

const copies = ({ expected }: Prepared, buffers: Readonly<Record<string, Guarded>>): Tensors =>
  Object.fromEntries(Object.keys(expected).map((name) => [name, (buffers[name] as Guarded).view.slice()]));

/** Whatever the bits of a NaN are: an engine may give it others when it has compiled a function anew. */
function sameBits(first: Tensors, got: Tensors): string | undefined {
  for (const [name, data] of Object.entries(first)) {
    const at = (data as Float32Array).findIndex((value, i) => !Object.is(value, got[name]?.[i]));
    if (at >= 0) return `${name}[${at}] changed between runs: ${data[at]}, then ${got[name]?.[at]}`;
  }
  return undefined;
}

/** What lies beyond the actual sizes of a run is not written. */
function untouched({ op, expected }: Prepared, got: Tensors): string | undefined {
  for (const [name, wanted] of Object.entries(expected)) {
    if ((op.ports[name] as TensorPort).role !== "out") continue;
    const [want, have] = [new Uint8Array(wanted.buffer), new Uint8Array((got[name] as HostArray).buffer)];
    let end = want.length;
    while (end > 0 && want[end - 1] === 0xff) end--;
    for (let i = end; i < want.length; i++) if (have[i] !== 0xff) return `${name} was written beyond the actual sizes`;
  }
  return undefined;
}

async function faultProblem({ op, axes, fault }: Prepared, run: () => unknown): Promise<string | undefined> {
  let message: string | undefined;
  try {
    await run();
  } catch (error) {
    if (!(error instanceof HotsetError) || error.code !== "index") throw error;
    message = error.message;
  }
  const wanted = fault && faultError(op, axes, fault).message;
  return message === wanted ? undefined : `it said ${message ?? "nothing"}, expected ${wanted ?? "nothing"}`;
}
