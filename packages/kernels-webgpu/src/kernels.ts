/** The WGSL kernels of this backend, one row an op: its id, and how its shader is bound and dispatched. */

export interface WebgpuKernel {
  /** Override constants and workgroups for these axes. */
  dispatch(axes: Readonly<Record<string, number>>): {
    readonly constants: Readonly<Record<string, number>>;
    readonly workgroups: readonly [number, number, number];
  };
}

/** None yet: this package holds the place, the parameter structs and the device types. */
export const kernels: Readonly<Record<string, WebgpuKernel>> = {};

/** Why an op has no kernel here. */
export const noKernel = "no WGSL kernel yet";
