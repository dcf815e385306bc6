/** Backend `native`: C++ kernels for this processor's instruction set, on the process's thread pool. */
import {
  type Allocation,
  allocShared,
  type Backend,
  BackendLoadError,
  type Binding,
  type BoundKernel,
  type Fault,
  type HostArray,
  HotsetError,
  type Kernel,
  type KernelRequest,
  Params,
  type Probe,
  pointerOffsets,
  presentTensors,
  symbolOf,
  tensorNames,
} from "@hotset/core/backend";
import { threadSetting } from "@hotset/core/node";
import { type Addon, type AddonFault, type IsaInfo, loadAddon } from "./addon.js";

export interface NativeSettings {
  /** Instruction set: `avx512`, `avx2`, `sse2` or `neon`. Default: HOTSET_ISA, else the best this processor has. */
  readonly isa?: string;
  /** Threads, the caller's included. Default: HOTSET_THREADS, else what the process may use. */
  readonly threads?: number;
}

/** Loads the addon. Throws BackendLoadError where there is none for this platform or it does not load. */
export function native(settings: NativeSettings = {}): Backend {
  const addon = loadAddon();
  const wanted = settings.isa ?? (process.env.HOTSET_ISA || undefined);
  return new NativeBackend(addon, chooseIsa(addon.describe(), wanted), threadSetting(settings.threads));
}

/** The instruction sets of this build that this processor has, best first. */
export const nativeIsas = (): string[] =>
  loadAddon()
    .describe()
    .filter(({ available }) => available)
    .map(({ name }) => name);

function chooseIsa(sets: readonly IsaInfo[], wanted: string | undefined): IsaInfo {
  const usable = sets.filter(({ available }) => available);
  const chosen = wanted === undefined ? usable[0] : usable.find(({ name }) => name === wanted);
  if (chosen) return chosen;
  const known = sets.find(({ name }) => name === wanted);
  throw new BackendLoadError({
    where: "native",
    expected: `an instruction set of ${usable.map(({ name }) => name).join(", ")}`,
    received: known ? `${wanted}, which needs ${known.needs}` : `${wanted}`,
    hint: "Check HOTSET_ISA.",
  });
}

class NativeBackend implements Backend {
  readonly id = "native" as const;
  readonly target: string;
  readonly name: string;
  readonly features: readonly string[];
  readonly threads: number;
  readonly inPlace = true;
  readonly #addon: Addon;
  readonly #isa: IsaInfo;

  constructor(addon: Addon, isa: IsaInfo, threads: number) {
    this.#addon = addon;
    this.#isa = isa;
    this.target = isa.name;
    this.threads = threads;
    this.name = `native ${isa.name}, ${threads} thread${threads === 1 ? "" : "s"}`;
    this.features = addon
      .describe()
      .filter(({ available }) => available)
      .map(({ name }) => name);
  }

  kernel({ op, axes, variant }: KernelRequest): Kernel | string {
    const symbol = symbolOf(op.id);
    const params = new Params(op, "c64");
    const bytes = this.#isa.kernels[symbol];
    if (bytes === undefined) return `no C++ kernel for ${op.id}`;
    if (bytes !== params.bytes.length) return `the addon was built for another version of ${op.id}`;
    params.fill(axes, variant, {}, {});
    // A kernel may choose by what is there; the addresses come with bind.
    for (const name of presentTensors(op, variant)) params.setPointer(name, 1);
    const plan = this.#addon.plan(this.#isa.name, symbol, params.bytes, this.threads);
    if (typeof plan === "string") return plan;
    const addon = this.#addon;
    const isa = this.#isa.name;
    const { threads } = this;
    return {
      name: plan.kernel,
      deterministic: true,
      bind: (binding) => new NativeStep(addon, isa, symbol, threads, plan.scratchBytes, binding),
    };
  }

  alloc(bytes: number): Allocation {
    return allocShared(bytes);
  }

  owns(): boolean {
    return false;
  }

  probe(probe: Probe): number {
    return this.#addon.probe(this.#isa.name, probe.kind, "bytes" in probe ? probe.bytes : 0, this.threads);
  }

  dispose(): void {}
}

/** Releases steps whose owner was collected without `dispose`. */
const collected = new FinalizationRegistry<() => void>((release) => release());

class NativeStep implements BoundKernel {
  readonly #addon: Addon;
  readonly #params: Params;
  readonly #names: readonly string[];
  readonly #step: number;
  #live = true;

  constructor(
    addon: Addon,
    isa: string,
    symbol: string,
    threads: number,
    scratchBytes: number,
    { op, axes, variant, tensors, pitch, scalars }: Binding,
  ) {
    this.#addon = addon;
    this.#names = tensorNames(op);
    this.#params = new Params(op, "c64").fill(axes, variant, pitch, scalars);
    const views: (HostArray | undefined)[] = this.#names.map((name) => tensors[name]);
    const step = addon.bind(isa, symbol, this.#params.bytes, threads, scratchBytes, Uint32Array.from(pointerOffsets(op, "c64")), views);
    if (step < 0)
      throw new HotsetError("memory", {
        where: `${op.id} on native`,
        expected: `${scratchBytes} bytes of scratch`,
        received: "no memory",
        hint: "Plan smaller axes, or fewer threads.",
      });
    this.#step = step;
    collected.register(this, () => addon.release(step), this);
  }

  run(): Fault | undefined {
    const fault = this.#addon.run(this.#step);
    return fault === undefined ? undefined : this.#fault(fault);
  }

  async start(): Promise<Fault | undefined> {
    const fault = await this.#addon.start(this.#step);
    return fault === undefined ? undefined : this.#fault(fault);
  }

  set(name: string, value: number): void {
    this.#params.set(name, value);
  }

  release(): void {
    if (!this.#live) return;
    this.#live = false;
    collected.unregister(this);
    this.#addon.release(this.#step);
  }

  #fault([code, port, index, value]: AddonFault): Fault {
    return { code: code === 1 ? "index" : "memory", port: this.#names[port] ?? "?", index, value };
  }
}
