/** Backend `webgpu`. */
import { type Backend, BackendLoadError } from "@hotset/core/backend";
import { kernels, noKernel } from "./kernels.js";

export { kernels, noKernel } from "./kernels.js";

export interface WebgpuSettings {
  /** A device the application already has; its buffers are then used as they are. */
  readonly device?: GPUDevice;
}

/** Throws BackendLoadError as long as the table of kernels is empty: a backend that runs nothing is none. */
export async function webgpu(_settings: WebgpuSettings = {}): Promise<Backend> {
  throw new BackendLoadError({
    where: "webgpu",
    expected: "at least one kernel",
    received: `${Object.keys(kernels).length}: ${noKernel} in this version`,
    hint: "The other backends run without it.",
  });
}
