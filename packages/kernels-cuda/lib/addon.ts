/** The addon, and how it is loaded: only after a process of its own has shown that it and the driver work. */
import { createRequire } from "node:module";
import { basename, dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { BackendLoadError } from "@hotset/core/backend";
import { readChecked } from "@hotset/core/node";
import { askInChild, type ChildSettings } from "./ask.js";

/** The addon's surface, one for all ops: see src/binding.cc. What goes wrong has `kind`: memory, device or internal. */
export interface Addon {
  /** Floats that a probe writes. */
  readonly probeSums: number;
  describe(): Description;
  open(device: number): number;
  close(queue: number): void;
  check(queue: number): boolean;
  alloc(queue: number, bytes: number): bigint;
  free(queue: number, address: bigint): void;
  write(queue: number, address: bigint, source: Uint8Array): void;
  wait(queue: number, step: number | undefined, addresses: BigUint64Array, targets: readonly Uint8Array[]): Promise<AddonFault | undefined>;
  plan(queue: number, symbol: string, params: Uint8Array): { kernel: string; scratchBytes: number } | string;
  bind(queue: number, symbol: string, params: Uint8Array, scratchBytes: number, offsets: Uint32Array, addresses: BigUint64Array): number;
  submit(queue: number, step: number): void;
  encode(queue: number, step: number, stream: bigint): void;
  time(queue: number, step: number): Promise<number>;
  release(queue: number, step: number): void;
  stream(queue: number): bigint;
  pointer(queue: number, address: bigint, bytes: number): string | undefined;
  probe(queue: number, kind: string, data: bigint, bytes: number, sums: bigint): { amount: number; us: Promise<number> };
}

export type AddonFault = [port: number, index: number, value: number];

export interface DeviceInfo {
  readonly name: string;
  /** 90 is compute capability 9.0. */
  readonly arch: number;
  readonly bytes: number;
  readonly multiprocessors: number;
}

export interface Description {
  readonly emulated: boolean;
  /** 13000 is CUDA 13.0; a driver of 0 is none. */
  readonly runtime: number;
  readonly driver: number;
  /** Why there is no device; else empty. */
  readonly reason: string;
  readonly devices: readonly DeviceInfo[];
  /** Bytes of the parameter struct of each kernel, by symbol. */
  readonly kernels: Readonly<Record<string, number>>;
}

const files = {
  real: fileURLToPath(new URL("../prebuilds/linux-x64/hotset-cuda.node", import.meta.url)),
  emulated: fileURLToPath(new URL("../build/emulated/addon/hotset-cuda-emulated.node", import.meta.url)),
};

export const addonFile = (emulated: boolean): string => (emulated ? files.emulated : files.real);

const noDeviceHint = "CUDA 13 needs an NVIDIA GPU of compute capability 8.0 or newer, and driver 580 or newer (see nvidia-smi).";

/** Loads the addon once it has run on the device in a child process. Throws BackendLoadError with the reason. */
export async function loadAddon(
  file: string,
  device: number,
  settings: ChildSettings,
): Promise<{ addon: Addon; description: Description }> {
  if (file === files.real && (process.platform !== "linux" || process.arch !== "x64"))
    throw new BackendLoadError({
      where: "cuda",
      expected: "Linux on x64",
      received: `${process.platform} on ${process.arch}`,
      hint: "The webgpu backend uses GPUs there.",
    });
  readChecked(dirname(file), basename(file));
  const { description, problem } = await askInChild(file, device, settings);
  if (description.devices.length === 0)
    throw new BackendLoadError({
      where: "cuda",
      expected: "an NVIDIA GPU and its driver",
      received: `no device: ${description.reason}`,
      hint: noDeviceHint,
    });
  if (device >= description.devices.length)
    throw new BackendLoadError({
      where: "cuda",
      expected: `a device below ${description.devices.length}`,
      received: `${device}`,
    });
  if (problem !== undefined)
    throw new BackendLoadError({
      where: "cuda",
      expected: `${description.devices[device]?.name} to run a kernel`,
      received: problem,
      hint: noDeviceHint,
    });
  try {
    return { addon: createRequire(import.meta.url)(file) as Addon, description };
  } catch (cause) {
    throw new BackendLoadError({
      where: "cuda",
      expected: `to load ${basename(file)}`,
      received: (cause as Error).message,
      hint: "It needs glibc 2.34 or newer.",
      cause,
    });
  }
}
