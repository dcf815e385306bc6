/** Backend `native`: C++ kernels for this processor's instruction set, on the process's thread pool. */
import {
  type Allocation,
  allocShared,
  BackendLoadError,
  type HostBackend,
  type Kernel,
  type KernelRequest,
  Params,
  type Probe,
  presentTensors,
  symbolOf,
} from "@hotset/core/backend";
import { threadSetting } from "@hotset/core/node";
import { type Addon, type IsaInfo, loadAddon } from "./addon.js";
import { NativeKernel } from "./kernel.js";

export interface NativeSettings {
  /** Instruction set: `avx512`, `avx2`, `sse2` or `neon`. Default: HOTSET_ISA, else the best this processor has. */
  readonly isa?: string;
  /** Threads, the caller's included. Default: HOTSET_THREADS, else what the process may use. */
  readonly threads?: number;
}

/** Loads the addon. Throws BackendLoadError where there is none for this platform or it does not load. */
export function native(settings: NativeSettings = {}): HostBackend {
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

class NativeBackend implements HostBackend {
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
    return new NativeKernel(this.#addon, { isa: this.#isa.name, symbol, threads: this.threads, ...plan }, op);
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

  map(file: number, bytes: number): Uint8Array | undefined {
    const buffer = this.#addon.map(file, bytes);
    return buffer && new Uint8Array(buffer);
  }

  dispose(): void {}
}
