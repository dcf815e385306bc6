/** Which builds this engine takes, and the memory they run in. */
import { BackendLoadError, HotsetError } from "@hotset/core/backend";

export type Build = "simd" | "relaxed";

/** Smallest modules that use a feature: an engine without it refuses them. */
const module = (code: readonly number[], memory: readonly number[] = []): Uint8Array<ArrayBuffer> =>
  // Header; type [] -> []; one function of it; memory; its body.
  new Uint8Array([
    0,
    0x61,
    0x73,
    0x6d,
    1,
    0,
    0,
    0,
    1,
    4,
    1,
    0x60,
    0,
    0,
    3,
    2,
    1,
    0,
    ...memory,
    10,
    code.length + 4,
    1,
    code.length + 2,
    0,
    ...code,
    0x0b,
  ]);
const vector = [0xfd, 0x0c, ...new Array<number>(16).fill(0)];
const features = {
  /** v128.const */
  simd: module([...vector, 0x1a]),
  /** f32x4.relaxed_madd */
  relaxed: module([...vector, ...vector, ...vector, 0xfd, 0x85, 2, 0x1a]),
  /** i32.atomic.load of a shared memory */
  threads: module([0x41, 0, 0xfe, 0x10, 2, 0, 0x1a], [5, 4, 1, 3, 1, 1]),
};

const has = (feature: keyof typeof features): boolean => typeof WebAssembly === "object" && WebAssembly.validate(features[feature]);

/** The builds that this engine accepts, best first. `wasm()` also checks that one computes rightly. */
export function wasmBuilds(): Build[] {
  if (!has("simd")) return [];
  return has("relaxed") ? ["relaxed", "simd"] : ["simd"];
}

/** Whether builds with threads can run here; else the reason. */
export function sharedMemory(): true | string {
  if (!has("threads")) return "no atomics in this engine";
  if (typeof SharedArrayBuffer === "undefined" || (globalThis as { crossOriginIsolated?: boolean }).crossOriginIsolated === false)
    return "the page is not cross-origin isolated";
  return true;
}

/** Candidates in order. Throws BackendLoadError where there is none. */
export function candidates(wanted: Build | undefined): Build[] {
  const builds = wasmBuilds();
  if (builds.length === 0)
    throw new BackendLoadError({
      where: "wasm",
      expected: "an engine with WebAssembly SIMD",
      received: "one without",
      hint: "Use Node 20, Chrome 91, Firefox 89, Safari 16.4 or later; the js backend runs without it.",
    });
  if (wanted === undefined) return builds;
  if (builds.includes(wanted)) return [wanted];
  throw new BackendLoadError({
    where: "wasm",
    expected: `a build of ${builds.join(", ")}`,
    received: `${wanted}`,
    hint: wanted === "relaxed" ? "This engine has no relaxed SIMD: Node 22 has." : "Leave it out to get the best one.",
  });
}

const page = 65536;
const least = 1 << 20;
const most = 4 * 2 ** 30;
/** Not the last page: loops in the kernels compare addresses with an end, and at 4 GiB that would be 0. */
const mostPages = most / page - 1;

/** A memory and the bytes it may grow to. A shared one grows; another is all there at once, so that no view dies. */
export function makeMemory(shared: boolean, wanted: number | undefined): { memory: WebAssembly.Memory; limit: number } {
  if (wanted !== undefined && !(Number.isInteger(wanted) && wanted >= least && wanted <= most))
    throw new HotsetError("argument", { where: "wasm: memory", expected: `${least} to ${most} bytes`, received: `${wanted}` });
  let cause: unknown;
  for (let bytes = wanted ?? (shared ? most : 2 ** 30); bytes >= (wanted ?? 64 << 20); bytes /= 2) {
    const maximum = Math.min(Math.floor(bytes / page), mostPages);
    try {
      const memory = new WebAssembly.Memory({ initial: shared ? Math.min(16, maximum) : maximum, maximum, shared });
      return { memory, limit: maximum * page };
    } catch (error) {
      cause = error;
    }
  }
  throw new BackendLoadError({
    where: "wasm",
    expected: `memory of ${wanted ?? 64 << 20} bytes`,
    received: (cause as Error).message,
    hint: "Ask for less: wasm({ memory: bytes }).",
    cause,
  });
}
