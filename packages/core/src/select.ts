/** Choosing a backend: every candidate with its predicted time, or the reason why it cannot. */
import { type Backend, type DeviceBackend, type HostBackend, isDevice, type Kernel } from "./backend.js";
import type { DeviceKernel } from "./device.js";
import { byteLength, type DType } from "./dtype.js";
import { BackendLoadError, HotsetError, UnsupportedError } from "./errors.js";
import { defaultConstants, type MachineConstants, type Prediction, predict, type Transfer } from "./machine.js";
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

/** A backend with its kernel. */
export type Chosen =
  | { readonly backend: HostBackend; readonly kernel: Kernel }
  | { readonly backend: DeviceBackend; readonly kernel: DeviceKernel };

export interface Choice {
  readonly chosen: Chosen;
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

/**
 * Which tensors need no copy: ports whose tensors `plan.alloc` will make, wherever the plan runs; or the backend in
 * whose memory each one lies already, so that leaving it is counted.
 */
export type Residency = readonly string[] | Readonly<Record<string, string>>;

export interface Wishes {
  readonly backend?: string | undefined;
  readonly resident?: Residency | undefined;
  /** May kernels be compiled first? Not in `planSync`. */
  readonly devices?: boolean | undefined;
}

const isNames = (resident: Residency): resident is readonly string[] => Array.isArray(resident);

/** What a run copies because it does not lie in the backend's memory. */
export function transferOf(
  op: Op,
  axes: AnyAxes,
  variant: AnyVariant,
  backend: Backend,
  resident: Residency,
  devices: ReadonlySet<string>,
): Transfer {
  let [upload, download, foreign] = [0, 0, 0];
  for (const name of presentTensors(op, variant)) {
    const lies = isNames(resident) ? (resident.includes(name) ? backend.id : "host") : (resident[name] ?? "host");
    if (lies === backend.id) continue;
    const port = op.ports[name] as TensorPort;
    const bytes = byteLength(portDType(op, name, variant) as DType, portShape(port, axes));
    // From another device to the host, and back there if it is written.
    if (devices.has(lies)) foreign += port.role === "inout" ? 2 * bytes : bytes;
    if (!isDevice(backend) && backend.inPlace) continue;
    if (port.role !== "out") upload += bytes;
    if (port.role !== "in") download += bytes;
  }
  return { upload, download, foreign };
}

/** All backends in order of predicted time; those that cannot run this come last, with their reason. */
export function rank(
  machine: Machine,
  op: Op,
  axes: AnyAxes,
  variant: AnyVariant,
  { resident = [], devices = true }: Wishes,
): { candidates: Candidate[]; kernels: Map<string, Chosen> } {
  const kernels = new Map<string, Chosen>();
  const deviceIds = new Set<string>(machine.backends.filter(isDevice).map(({ id }) => id));
  const candidates: Candidate[] = machine.backends.map((backend) => {
    const refused = isDevice(backend) ? refusedByAuto(backend, devices) : undefined;
    const chosen = refused ?? kernelOf(backend, op, axes, variant);
    if (typeof chosen === "string") return { backend: backend.id, target: backend.target, reason: chosen };
    kernels.set(backend.id, chosen);
    const transfer = transferOf(op, axes, variant, backend, resident, deviceIds);
    const constants = machine.constants[backend.id] ?? defaultConstants(backend);
    const prediction = predict(constants, op.id, op.cost(axes, variant), transfer);
    return { backend: backend.id, target: backend.target, kernel: chosen.kernel.name, us: prediction.us, prediction };
  });
  candidates.sort((a, b) => (a.us ?? Number.POSITIVE_INFINITY) - (b.us ?? Number.POSITIVE_INFINITY));
  for (const { id, reason } of machine.missing) candidates.push({ backend: id, target: "-", reason });
  return { candidates, kernels };
}

/** Why `auto` leaves a device alone whatever it could run. */
function refusedByAuto({ id, device, name }: DeviceBackend, devices: boolean): string | undefined {
  if (device.lost === undefined && device.software) return `${name} is drawn by the CPU: auto never picks it; { backend: "${id}" } does`;
  return devices ? undefined : "it compiles its kernels first: await plan(...) instead of planSync";
}

function kernelOf(backend: Backend, op: Op, axes: AnyAxes, variant: AnyVariant): Chosen | string {
  if (isDevice(backend)) {
    const kernel = backend.kernel({ op, axes, variant });
    return typeof kernel === "string" ? kernel : { backend, kernel };
  }
  const kernel = backend.kernel({ op, axes, variant });
  return typeof kernel === "string" ? kernel : { backend, kernel };
}

/** The fastest backend, or exactly the one that was asked for. */
export function choose(machine: Machine, op: Op, axes: AnyAxes, variant: AnyVariant, wishes: Wishes): Choice {
  const { backend: wanted } = wishes;
  if (wanted !== undefined && wanted !== "auto") return chooseNamed(machine, op, axes, variant, wanted, wishes);
  const { candidates, kernels } = rank(machine, op, axes, variant, wishes);
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
  return { chosen: found, why, candidates };
}

function chooseNamed(machine: Machine, op: Op, axes: AnyAxes, variant: AnyVariant, wanted: string, { devices = true }: Wishes): Choice {
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
  const chosen = kernelOf(backend, op, axes, variant);
  if (typeof chosen === "string")
    throw new UnsupportedError({
      where: op.id,
      expected: `${wanted} to have a kernel for this`,
      received: chosen,
      hint: 'Leave out backend, or use "auto", to let another one run it.',
    });
  if (isDevice(backend) && !devices)
    throw new UnsupportedError({
      where: `${op.id}: planSync`,
      expected: "a backend whose kernels are ready",
      received: `${wanted}, which compiles them first`,
      hint: "Use await plan(...).",
    });
  return {
    chosen,
    why: `${wanted} was asked for`,
    candidates: [{ backend: wanted, target: backend.target, kernel: chosen.kernel.name }],
  };
}

/** `12.3 µs`, `4.56 ms`, `1.20 s`. */
export function time(us: number): string {
  if (us < 1e3) return `${us.toPrecision(3)} µs`;
  return us < 1e6 ? `${(us / 1e3).toPrecision(3)} ms` : `${(us / 1e6).toPrecision(3)} s`;
}
