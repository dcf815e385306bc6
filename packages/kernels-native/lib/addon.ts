import { createRequire } from "node:module";
import { arch, platform } from "node:os";
import { fileURLToPath } from "node:url";
import { BackendLoadError } from "@hotset/core/backend";
import { readChecked } from "@hotset/core/node";

/** The addon's surface, one for all ops: see src/binding.cc. */
export interface Addon {
  describe(): IsaInfo[];
  plan(isa: string, symbol: string, params: Uint8Array, slots: number): { kernel: string; scratchBytes: number } | string;
  bind(
    isa: string,
    symbol: string,
    params: Uint8Array,
    slots: number,
    scratchBytes: number,
    offsets: Uint32Array,
    tensors: readonly (ArrayBufferView | undefined)[],
  ): number;
  call(
    isa: string,
    symbol: string,
    params: Uint8Array,
    slots: number,
    scratchBytes: number,
    offsets: Uint32Array,
    tensors: readonly (ArrayBufferView | undefined)[],
  ): AddonFault | number | undefined;
  run(step: number): AddonFault | undefined;
  start(step: number): Promise<AddonFault | undefined>;
  release(step: number): void;
  probe(isa: string, kind: string, bytes: number, threads: number): number;
  /** The first bytes of an open file, copied on write; undefined where the system cannot. */
  map(file: number, bytes: number): ArrayBuffer | undefined;
}

export type AddonFault = [code: number, port: number, index: number, value: number];

export interface IsaInfo {
  readonly name: string;
  readonly available: boolean;
  readonly needs: string;
  /** Bytes of the parameter struct of each kernel, by symbol. */
  readonly kernels: Readonly<Record<string, number>>;
}

let loaded: Addon | undefined;

/** Loads the addon of this platform once. Throws BackendLoadError with the reason and what to do. */
export function loadAddon(): Addon {
  if (loaded) return loaded;
  const triple = platformTriple();
  const folder = fileURLToPath(new URL(`../prebuilds/${triple}`, import.meta.url));
  readChecked(folder, "hotset.node");
  try {
    loaded = createRequire(import.meta.url)(`${folder}/hotset.node`) as Addon;
  } catch (cause) {
    throw new BackendLoadError({
      where: "native",
      expected: `to load the addon of ${triple}`,
      received: (cause as Error).message,
      hint: "The wasm backend runs without it.",
      cause,
    });
  }
  return loaded;
}

/** `linux-x64`, `linux-x64-musl`, `darwin-arm64`... */
export function platformTriple(): string {
  if (platform() !== "linux") return `${platform()}-${arch()}`;
  const report = process.report;
  // Without this the report resolves the names of open connections, which can take seconds.
  (report as { excludeNetwork?: boolean }).excludeNetwork = true;
  const { header } = report.getReport() as unknown as { header: { glibcVersionRuntime?: string } };
  return `linux-${arch()}${header.glibcVersionRuntime ? "" : "-musl"}`;
}
