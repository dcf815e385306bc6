/** Backend `wasm`: AssemblyScript kernels in one memory, on as many threads as there are workers for. */
import {
  type Allocation,
  BackendLoadError,
  type Binding,
  type BoundKernel,
  byteLength,
  type DType,
  type Fault,
  type HostBackend,
  type Kernel,
  type KernelRequest,
  layoutOf,
  Params,
  type Probe,
  portDType,
  portShape,
  presentTensors,
  symbolOf,
  type TensorPort,
} from "@hotset/core/backend";
import { type Build, candidates, sharedMemory } from "./builds.js";
import type { Host } from "./host.js";
import { type Instance, instantiate, opIn } from "./instance.js";
import type { KernelCode, Runner } from "./job.js";
import { kernels } from "./kernels.js";
import { CallMemory, Once } from "./once.js";
import { measure } from "./probe.js";
import { WasmStep } from "./step.js";
import { Workers } from "./workers.js";

export interface WasmSettings {
  /** `relaxed` uses relaxed SIMD (fused multiply-add). Default: the best that this engine takes and computes rightly. */
  readonly build?: Build;
  /** Threads, the caller's included. Default in Node: HOTSET_THREADS, else what the process may use; in pages: up to 8. */
  readonly threads?: number;
  /** Bytes that tensors, copies and scratch may take. Default: 4 GiB where memory is shared and grows, else 1 GiB at once. */
  readonly memory?: number;
  /** False: memory that is not shared and does not grow, and no threads. Default: shared where the engine allows it. */
  readonly shared?: boolean;
}

/** Makes the backend on a host. Throws BackendLoadError where no build can be used. */
export async function makeBackend(host: Host, { build, threads, memory, shared }: WasmSettings): Promise<HostBackend> {
  const notes: string[] = [];
  const wanted = host.threads(threads);
  const sharing = shared === false ? "switched off" : sharedMemory();
  if (sharing !== true) notes.push(`no threads: ${sharing}`);
  const reasons: string[] = [];
  for (const candidate of candidates(build)) {
    const instance = await instantiate(host, candidate, sharing === true, memory);
    if (typeof instance !== "string") {
      notes.unshift(...reasons);
      const workers = sharing === true && wanted > 1 ? await startWorkers(host, instance, wanted, notes) : undefined;
      return new WasmBackend(host, instance, candidate, workers, workers ? wanted : 1, notes);
    }
    reasons.push(`no ${candidate} build: ${instance}`);
  }
  throw new BackendLoadError({
    where: "wasm",
    expected: "an engine that runs one of its builds",
    received: reasons.join("; "),
    hint: "Please report this engine; the js backend runs without it.",
  });
}

/** Workers, or a note why there are none. */
async function startWorkers(host: Host, { module, arena }: Instance, threads: number, notes: string[]): Promise<Workers | undefined> {
  let reason = host.noWorkers;
  if (reason === undefined) {
    const workers = new Workers(host, module, arena.memory, threads);
    // Where they start aside, the first step that has work for them starts them.
    reason = host.startsAside ? undefined : await workers.helpersStarted();
    if (reason === undefined) return workers;
    workers.dispose();
  }
  notes.push(`no workers: ${reason}`);
  return undefined;
}

class WasmBackend implements HostBackend {
  readonly id = "wasm" as const;
  readonly target: string;
  readonly name: string;
  readonly features: readonly string[];
  readonly threads: number;
  readonly inPlace = false;
  readonly #instance: Instance;
  readonly #runner: Runner;
  readonly #calls: CallMemory;
  /** Where plans are made. */
  readonly #desk: number;

  constructor(host: Host, instance: Instance, build: Build, workers: Workers | undefined, threads: number, notes: readonly string[]) {
    this.target = instance.file;
    this.threads = threads;
    this.name = `wasm ${build}, ${threads} thread${threads === 1 ? "" : "s"}${notes.length ? ` (${notes.join("; ")})` : ""}`;
    this.features = [
      "simd128",
      ...(build === "relaxed" ? ["relaxed-simd"] : []),
      ...(instance.file.endsWith("threads") ? ["threads"] : []),
      ...notes,
    ];
    this.#instance = instance;
    this.#runner = {
      arena: instance.arena,
      exports: instance.exports,
      threads,
      together: workers && host.mayBlock ? 1 : 0,
      workers,
    };
    this.#calls = new CallMemory(instance.arena);
    this.#desk = instance.arena.alloc(deskBytes, true);
    if (workers) collected.register(this.#runner, () => workers.dispose());
  }

  kernel({ op, axes, variant }: KernelRequest): Kernel | string {
    const names = kernels[op.id];
    const symbol = symbolOf(op.id);
    const found = opIn(this.#instance, symbol);
    const { bytes } = layoutOf(op, "wasm32");
    if (!names || !found) return `no wasm kernel for ${op.id}`;
    if (bytes !== found.bytes || bytes > deskBytes / 2) return `the wasm build was made for another version of ${op.id}`;
    const tensorBytes = presentTensors(op, variant).reduce((sum, name) => {
      return sum + byteLength(portDType(op, name, variant) as DType, portShape(op.ports[name] as TensorPort, axes));
    }, 0);
    const { limit } = this.#runner.arena;
    const tooLarge = (total: number): string =>
      `its tensors and scratch take ${sizeText(total)}, more than wasm memory holds (${sizeText(limit)})`;
    // Sizes that 32 bits hold: a plan's arithmetic may rely on that.
    if (tensorBytes > limit) return tooLarge(tensorBytes);
    const plan = this.#plan({ op, axes, variant }, found.number, bytes);
    if (tensorBytes + plan.scratchBytes > limit) return tooLarge(tensorBytes + plan.scratchBytes);
    const runner = this.#runner;
    const code: KernelCode = { op: found.number, paramsBytes: bytes, scratchBytes: plan.scratchBytes };
    const once = new Once(runner, this.#calls, code, op);
    const start = (): void => {
      if (plan.parallel) runner.workers?.startHelpers();
    };
    return {
      name: names[plan.kernel] ?? `${op.id} ${plan.kernel}`,
      deterministic: true,
      bind(binding: Binding): BoundKernel {
        start();
        return new WasmStep(runner, code, binding);
      },
      once(binding: Binding): Fault | undefined {
        start();
        return once.run(binding);
      },
    };
  }

  alloc(bytes: number): Allocation {
    const { arena } = this.#runner;
    const address = arena.alloc(bytes, true);
    let live = true;
    return {
      bytes: new Uint8Array(arena.memory.buffer, address, bytes),
      release() {
        if (live) arena.free(address);
        live = false;
      },
    };
  }

  owns(view: ArrayBufferView): boolean {
    return this.#runner.arena.owns(view);
  }

  probe(probe: Probe): number {
    this.#runner.workers?.startHelpers();
    return measure(this.#runner, this.#instance.exports.probe_number.value, probe);
  }

  dispose(): void {
    this.#runner.workers?.dispose();
  }

  #plan({ op, axes, variant }: KernelRequest, number: number, bytes: number): { kernel: number; scratchBytes: number; parallel: boolean } {
    const { buffer } = this.#runner.arena.memory;
    const at = this.#desk;
    const out = at + deskBytes / 2;
    const params = new Params(op, "wasm32", new Uint8Array(buffer, at, bytes)).fill(axes, variant, {}, {});
    // A kernel may choose by what is there; the addresses come with bind.
    for (const name of Object.keys(op.ports)) params.setPointer(name, 0);
    for (const name of presentTensors(op, variant)) params.setPointer(name, 1);
    this.#instance.exports.plan_kernel(number, at, this.threads, out);
    // As assembly/lib/kernel.ts: kernel, phases, tasks of each phase, scratch bytes.
    const view = new DataView(buffer, out, 32);
    const phases = view.getUint32(4, true);
    const parallel = Array.from({ length: phases }, (_, phase) => view.getUint32(8 + 4 * phase, true)).some((tasks) => tasks > 1);
    return { kernel: view.getUint32(0, true), scratchBytes: view.getFloat64(24, true), parallel };
  }
}

/** Ends the workers of a backend that nothing can reach any more: steps and kernels hold its runner, and workers do not. */
const collected = new FinalizationRegistry<() => void>((end) => end());

const sizeText = (bytes: number): string =>
  bytes < 2 ** 30 ? `${(bytes / 2 ** 20).toFixed(1)} MiB` : `${(bytes / 2 ** 30).toFixed(1)} GiB`;

/** Half for parameters, half for a plan. */
const deskBytes = 8192;
