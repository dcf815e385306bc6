/** One instance of a build: its module, memory and functions, checked. */
import { BackendLoadError } from "@hotset/core/backend";
import { Arena } from "./arena.js";
import { type Build, makeMemory } from "./builds.js";
import type { BuildFile, Host } from "./host.js";

/** What every build exports; and of each op its number and the bytes of its parameters, as globals. */
export interface Exports {
  /** Plans a kernel: writes a plan at `out`. */
  plan_kernel(op: number, params: number, slots: number, out: number): void;
  /** Runs a job; 0, or the address of the first fault. */
  run(job: number, together: number): number;
  self_check(memory: number): number;
  readonly check_bytes: WebAssembly.Global;
  readonly probe_number: WebAssembly.Global;
  readonly [name: string]: WebAssembly.ExportValue | undefined;
}

export interface Instance {
  readonly file: BuildFile;
  readonly module: WebAssembly.Module;
  readonly arena: Arena;
  readonly exports: Exports;
}

/** Number of an op in this build and the bytes of its parameters; undefined where it has no kernel. */
export function opIn({ exports }: Instance, symbol: string): { number: number; bytes: number } | undefined {
  const number = exports[`${symbol}_number`];
  const bytes = exports[`${symbol}_bytes`];
  if (!(number instanceof WebAssembly.Global) || !(bytes instanceof WebAssembly.Global)) return undefined;
  return { number: number.value, bytes: bytes.value };
}

/** Loads a build. A string is the reason why this engine cannot use it. Throws BackendLoadError where a file is damaged. */
export async function instantiate(host: Host, build: Build, shared: boolean, memoryBytes: number | undefined): Promise<Instance | string> {
  const file: BuildFile = shared ? `${build}-threads` : build;
  const bytes = await host.load(file);
  const { memory, limit } = makeMemory(shared, memoryBytes);
  try {
    const { module, instance } = await WebAssembly.instantiate(bytes, { env: { memory } });
    const loaded: Instance = { file, module, arena: new Arena(memory, limit), exports: instance.exports as unknown as Exports };
    const failed = check(loaded);
    return failed === 0 ? loaded : `its self-check ${failed} gave a wrong result`;
  } catch (error) {
    if (error instanceof BackendLoadError) throw error;
    return (error as Error).message;
  }
}

/** An engine may take an instruction and compute it wrongly. */
function check({ arena, exports }: Instance): number {
  const memory = arena.alloc(exports.check_bytes.value, true);
  const failed = exports.self_check(memory);
  arena.free(memory);
  return failed;
}
