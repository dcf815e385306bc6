/** Finding a GPU: the application's device or adapter, `navigator.gpu` of pages and Deno, or Dawn in Node. */
import { BackendLoadError } from "@hotset/core/backend";
import type { Tunables } from "./program.js";

export interface WebgpuSettings {
  /** A device the application already has: its buffers are then used as they are, and it is left alive. */
  readonly device?: GPUDevice;
  /** An adapter the application has chosen; a device of our own is made from it. */
  readonly adapter?: GPUAdapter;
  /** An implementation of WebGPU, such as `create([...])` of npm's `webgpu`. Default: `navigator.gpu`, else that package. */
  readonly gpu?: GPU;
  /** Default `high-performance`. */
  readonly powerPreference?: GPUPowerPreference;
  /** Features that kernels may use where the adapter has them. Default: all of `shader-f16`, `subgroups`, `timestamp-query`. */
  readonly features?: readonly ("shader-f16" | "subgroups" | "timestamp-query")[];
  /** Sizes of tiles, for measuring. Default: 128 threads, 8 queries, 32 columns; less on a software adapter. */
  readonly tunables?: Partial<Tunables>;
}

/** For a GPU. */
const largeTiles: Tunables = { threads: 128, queries: 8, columns: 32, results: 16, bindingBytes: 2 ** 32 - 256 };
/** For a driver that computes on the CPU: it unrolls every loop, and compiling a tile of 128 x 32 takes it 5 s, this one 0.8 s. */
const smallTiles: Tunables = { threads: 32, queries: 2, columns: 8, results: 64, bindingBytes: 2 ** 32 - 256 };

export const tunablesOf = (software: boolean, given: Partial<Tunables>): Tunables => ({
  ...(software ? smallTiles : largeTiles),
  ...given,
});

export interface Found {
  readonly device: GPUDevice;
  readonly info: GPUAdapterInfo | undefined;
  readonly borrowed: boolean;
  readonly tunables: Partial<Tunables>;
}

/** What kernels use where it is there. */
export const usedFeatures = ["shader-f16", "subgroups", "timestamp-query"] as const;
const wantedLimits = [
  "maxStorageBufferBindingSize",
  "maxBufferSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
] as const;

/** Throws BackendLoadError, with what to do. */
export async function findDevice({ device, adapter, gpu, powerPreference, features, tunables = {} }: WebgpuSettings): Promise<Found> {
  if (device) return { device, info: device.adapterInfo, borrowed: true, tunables };
  const source = adapter ? undefined : (gpu ?? (await findGpu()));
  if (source) kept.add(source);
  const chosen = adapter ?? (await source?.requestAdapter({ powerPreference: powerPreference ?? "high-performance" }));
  if (!chosen)
    throw new BackendLoadError({
      where: "webgpu",
      expected: "an adapter",
      received: "none: no GPU, or no driver for it",
      hint: "In Node on Linux, Dawn needs libvulkan1 and a Vulkan driver; in a browser, see chrome://gpu.",
    });
  const requiredLimits = Object.fromEntries(wantedLimits.map((name) => [name, chosen.limits[name]]));
  const requiredFeatures = (features ?? usedFeatures).filter((name) => chosen.features.has(name));
  try {
    const made = await chosen.requestDevice({ label: "hotset", requiredFeatures, requiredLimits });
    return { device: made, info: chosen.info, borrowed: false, tunables };
  } catch (cause) {
    throw new BackendLoadError({ where: "webgpu", expected: "a device of the adapter", received: (cause as Error).message, cause });
  }
}

async function findGpu(): Promise<GPU> {
  const here = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (here) return here;
  if (typeof process === "undefined" || !process.versions?.node)
    throw new BackendLoadError({
      where: "webgpu",
      expected: "navigator.gpu",
      received: "a page without it",
      hint: "WebGPU needs a secure context (https or localhost) and a browser that has it.",
    });
  return dawn();
}

/** Dawn ends the process where an instance is collected before its devices. */
const kept = new Set<GPU>();

let instance: Promise<GPU> | undefined;

/** Dawn's npm package, one instance a process. */
function dawn(): Promise<GPU> {
  // Not spelt out for bundlers: pages have WebGPU of their own.
  const name = "webgpu";
  instance ??= import(/* @vite-ignore */ name).then(
    ({ create }: { create(options: string[]): GPU }) => {
      if (vulkanIsMissing())
        throw new BackendLoadError({
          where: "webgpu",
          expected: "Vulkan, which Dawn uses on Linux",
          received: "no libvulkan.so.1",
          hint: "Install libvulkan1 and the driver of the GPU.",
        });
      return create([]);
    },
    (cause: NodeJS.ErrnoException) => {
      instance = undefined;
      const absent = cause.code === "ERR_MODULE_NOT_FOUND";
      throw new BackendLoadError({
        where: "webgpu",
        expected: absent ? "npm's webgpu package (Dawn), which brings WebGPU to Node" : "npm's webgpu package to load",
        received: absent ? "it is not installed" : cause.message,
        hint: absent ? "npm i webgpu@0.6.2" : "It has binaries for Linux (glibc 2.34), macOS and Windows, x64 and arm64.",
        cause,
      });
    },
  );
  return instance;
}

/** Dawn would complain on stderr, whoever looks at it; so the loader is looked for first. It is no addon: only how it fails counts. */
function vulkanIsMissing(): boolean {
  if (process.platform !== "linux" || typeof process.dlopen !== "function") return false;
  try {
    process.dlopen({ exports: {} }, "libvulkan.so.1");
    return false;
  } catch (error) {
    return /cannot open shared object/.test((error as Error).message);
  }
}

/** Words of drivers that compute on the CPU. */
const softwareNames = /swiftshader|llvmpipe|lavapipe|softpipe|basic render|software/i;

export function describeAdapter(info: GPUAdapterInfo | undefined): { target: string; name: string; software: boolean } {
  const { vendor = "", architecture = "", device = "", description = "" } = info ?? {};
  const named = softwareNames.exec([vendor, architecture, device, description].join(" "))?.[0].toLowerCase();
  const software = named !== undefined || (info as { isFallbackAdapter?: boolean } | undefined)?.isFallbackAdapter === true;
  const target = software ? (named ?? "software") : [vendor, architecture].filter(Boolean).join("-") || "gpu";
  return { target, name: description || [vendor, architecture, device].filter(Boolean).join(" ") || "an adapter without a name", software };
}
