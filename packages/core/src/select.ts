/** Choosing a backend: every candidate with its predicted time, or the reason why it cannot. */
import type { Backend, Kernel } from "./backend.js";
import { byteLength } from "./dtype.js";
import { BackendLoadError, HotsetError, UnsupportedError } from "./errors.js";
import type { MachineConstants, Prediction } from "./machine.js";
import { defaultConstants, predict } from "./machine.js";
import { portShape } from "./op/axes.js";
import type { AnyAxes, AnyVariant, Op, TensorPort } from "./op/define.js";
import { portDType, presentTensors } from "./op/variant.js";

/** A backend that could not be loaded, and why. */
export interface Missing {
  readonly id: string;
  readonly reason: string;
}

export interface Candidate {
  readonly backend: string;
  readonly target: string;
  readonly kernel?: string;
  /** Predicted microseconds of one run. */
  readonly us?: number;
  readonly prediction?: Prediction;
  /** Why it cannot run this. */
  readonly reason?: string;
}

export interface Choice {
  readonly backend: Backend;
  readonly kernel: Kernel;
  /** One sentence. */
  readonly why: string;
  readonly candidates: readonly Candidate[];
}

export interface Machine {
  readonly backends: readonly Backend[];
  readonly missing: readonly Missing[];
  /** Measured constants by backend id; a backend that is not in it uses the defaults. */
  readonly constants: MachineConstants;
}

/** Bytes that a run copies because they do not lie in the backend's memory. */
export function transferBytes(op: Op, axes: AnyAxes, variant: AnyVariant, backend: Backend, resident: readonly string[]): number {
  if (backend.inPlace) return 0;
  let bytes = 0;
  for (const name of presentTensors(op, variant)) {
    if (resident.includes(name)) continue;
    const port = op.ports[name] as TensorPort;
    const size = byteLength(portDType(op, name, variant) as NonNullable<ReturnType<typeof portDType>>, portShape(port, axes));
    bytes += port.role === "inout" ? 2 * size : size;
  }
  return bytes;
}

/** All backends in order of predicted time; those that cannot run this come last, with their reason. */
export function rank(
  machine: Machine,
  op: Op,
  axes: AnyAxes,
  variant: AnyVariant,
  resident: readonly string[],
): { candidates: Candidate[]; kernels: Map<string, { backend: Backend; kernel: Kernel }> } {
  const kernels = new Map<string, { backend: Backend; kernel: Kernel }>();
  const candidates: Candidate[] = machine.backends.map((backend) => {
    const kernel = backend.kernel({ op, axes, variant });
    if (typeof kernel === "string") return { backend: backend.id, target: backend.target, reason: kernel };
    kernels.set(backend.id, { backend, kernel });
    const prediction = predict(
      machine.constants[backend.id] ?? defaultConstants(backend),
      op.id,
      op.cost(axes, variant),
      transferBytes(op, axes, variant, backend, resident),
    );
    return { backend: backend.id, target: backend.target, kernel: kernel.name, us: prediction.us, prediction };
  });
  candidates.sort((a, b) => (a.us ?? Number.POSITIVE_INFINITY) - (b.us ?? Number.POSITIVE_INFINITY));
  for (const { id, reason } of machine.missing) candidates.push({ backend: id, target: "-", reason });
  return { candidates, kernels };
}

/** The fastest backend, or exactly the one that was asked for. */
export function choose(
  machine: Machine,
  op: Op,
  axes: AnyAxes,
  variant: AnyVariant,
  { backend: wanted, resident = [] }: { backend?: string | undefined; resident?: readonly string[] },
): Choice {
  if (wanted !== undefined && wanted !== "auto") return chooseNamed(machine, op, axes, variant, wanted);
  const { candidates, kernels } = rank(machine, op, axes, variant, resident);
  const best = candidates[0];
  const found = best?.kernel === undefined ? undefined : kernels.get(best.backend);
  if (!best || !found) {
    throw new UnsupportedError({
      where: op.id,
      expected: "a backend that can run this",
      received: candidates.map(({ backend, reason }) => `${backend}: ${reason}`).join("; ") || "no backend at all",
      hint: "Pass backends to createHotset, or run `hotset doctor`.",
    });
  }
  const second = candidates[1]?.us === undefined ? undefined : candidates[1];
  const limit = best.prediction && best.prediction.memoryUs >= best.prediction.computeUs ? "memory" : "arithmetic";
  const measured = machine.constants[best.backend] ? "as measured here" : "by built-in figures; `hotset calibrate` measures this machine";
  const why = `${best.backend} is predicted at ${time(best.us as number)}, bound by ${limit}${second ? `; next is ${second.backend} at ${time(second.us as number)}` : "; no other backend can run it"} (${measured})`;
  return { ...found, why, candidates };
}

function chooseNamed(machine: Machine, op: Op, axes: AnyAxes, variant: AnyVariant, wanted: string): Choice {
  const backend = machine.backends.find(({ id }) => id === wanted);
  if (!backend) {
    const missing = machine.missing.find(({ id }) => id === wanted);
    const parts = {
      where: op.id,
      expected: `backend ${wanted}`,
      received: missing ? `it is not available: ${missing.reason}` : `only ${machine.backends.map(({ id }) => id).join(", ")}`,
    };
    throw missing ? new BackendLoadError(parts) : new HotsetError("argument", parts);
  }
  const kernel = backend.kernel({ op, axes, variant });
  if (typeof kernel === "string")
    throw new UnsupportedError({
      where: op.id,
      expected: `${wanted} to have a kernel for this`,
      received: kernel,
      hint: 'Leave out backend, or use "auto", to let another one run it.',
    });
  return {
    backend,
    kernel,
    why: `${wanted} was asked for`,
    candidates: [{ backend: wanted, target: backend.target, kernel: kernel.name }],
  };
}

/** `12.3 µs`, `4.56 ms`, `1.20 s`. */
export function time(us: number): string {
  if (us < 1e3) return `${us.toPrecision(3)} µs`;
  return us < 1e6 ? `${(us / 1e3).toPrecision(3)} ms` : `${(us / 1e6).toPrecision(3)} s`;
}
