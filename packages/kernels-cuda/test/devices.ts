/** The devices that these tests run on: the emulation, and a GPU where there is one. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { HotsetError } from "@hotset/core";
import { without } from "../../../test/support/missing.js";
import { type CudaBackend, type CudaSettings, cuda } from "../dist/index.js";

export const emulatedAddon = fileURLToPath(new URL("../build/emulated/addon/hotset-cuda-emulated.node", import.meta.url));
export const realAddon = fileURLToPath(new URL("../prebuilds/linux-x64/hotset-cuda.node", import.meta.url));

export interface TestDevice {
  readonly name: string;
  readonly settings: CudaSettings;
  /** Why tests on it are skipped. */
  readonly missing: string | undefined;
}

/** Without g++ and cmake there is no emulation; a GPU is never a must. */
export const emulated: TestDevice = {
  name: "cuda emulated",
  settings: { emulated: true },
  missing: without(existsSync(emulatedAddon)) ? "needs g++ and cmake" : undefined,
};

export const gpu: TestDevice = { name: "cuda on a GPU", settings: {}, missing: await whyNoGpu() };

async function whyNoGpu(): Promise<string | undefined> {
  if (!existsSync(realAddon)) return "needs nvcc";
  try {
    (await cuda()).dispose();
    return undefined;
  } catch (error) {
    // Any other reason is a failure: the tests then run, and show it.
    const { received } = error as HotsetError;
    return received?.startsWith("no device: ") ? received : undefined;
  }
}

export const open = ({ settings }: TestDevice): Promise<CudaBackend> => cuda(settings);
