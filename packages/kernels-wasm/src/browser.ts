/** `@hotset/kernels-wasm` in pages and bundles: builds come with the code; workers are made from a Blob. */
import { type Backend, HotsetError } from "@hotset/core/backend";
import { makeBackend, type WasmSettings } from "./backend.js";
import { embedded } from "./embedded.js";
import { type Host, workerProgram } from "./host.js";

export type { WasmSettings } from "./backend.js";
export { type Build, wasmBuilds } from "./builds.js";

/** Loads the best build that this engine takes. Throws BackendLoadError with the reason and what to do. */
export const wasm = (settings: WasmSettings = {}): Promise<Backend> => makeBackend(page, settings);

const source = `${workerProgram}
onmessage = ({ data }) => work(data, postMessage);`;

/** More threads than this seldom help and always cost memory. */
const threadLimit = 8;

const page: Host = {
  load: embedded,
  threads(wanted) {
    const threads = wanted ?? Math.min(threadLimit, globalThis.navigator?.hardwareConcurrency ?? 1);
    if (!Number.isInteger(threads) || threads < 1 || threads > 256)
      throw new HotsetError("argument", { where: "threads", expected: "a whole number from 1 to 256", received: `${threads}` });
    return threads;
  },
  get mayBlock() {
    return mayBlock();
  },
  startsAside: false,
  noWorkers: typeof Worker === "undefined" || typeof Blob === "undefined" ? "there is no Worker here" : undefined,
  startWorker(task, { message, failed }) {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const worker = new Worker(url, { name: "hotset wasm" });
    // Needed until the worker has read it; by its first message it has.
    const forget = () => URL.revokeObjectURL(url);
    worker.onmessage = ({ data }: MessageEvent<number>) => {
      forget();
      message(data);
    };
    worker.onerror = (event) => {
      forget();
      failed(event.message || "it could not be started");
    };
    worker.postMessage(task);
    return { hold() {}, stop: async () => worker.terminate() };
  },
};

/** A page's main thread may not sleep: there Atomics.wait throws. */
function mayBlock(): boolean {
  try {
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 1, 0);
    return true;
  } catch {
    return false;
  }
}
