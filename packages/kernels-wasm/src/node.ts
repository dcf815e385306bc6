/** `@hotset/kernels-wasm` in Node: builds are files that are checked before they are loaded; workers are worker threads. */
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import type { Backend } from "@hotset/core/backend";
import { readChecked, threadSetting } from "@hotset/core/node";
import { makeBackend, type WasmSettings } from "./backend.js";
import { type Host, workerProgram } from "./host.js";

export type { WasmSettings } from "./backend.js";
export { type Build, wasmBuilds } from "./builds.js";

/** Loads the best build that this engine takes. Throws BackendLoadError with the reason and what to do. */
export const wasm = (settings: WasmSettings = {}): Promise<Backend> => makeBackend(node, settings);

const source = `${workerProgram}
const { parentPort, workerData } = require("node:worker_threads");
work(workerData, (value) => parentPort.postMessage(value));`;

const permission = (process as { permission?: { has(scope: string): boolean } }).permission;

const node: Host = {
  load: async (file) => readChecked(fileURLToPath(new URL(".", import.meta.url)), `${file}.wasm`),
  threads: threadSetting,
  mayBlock: true,
  startsAside: true,
  noWorkers: permission && !permission.has("worker") ? "the permission model forbids them" : undefined,
  startWorker(task, { message, failed }) {
    // None of the flags and loaders of the program: a worker runs a few lines of its own.
    const worker = new Worker(source, { eval: true, workerData: task, execArgv: [], name: "hotset wasm" });
    worker.on("message", message);
    worker.on("error", (error: Error) => failed(error.message));
    worker.on("exit", (code) => failed(`a worker ended with code ${code}`));
    // After the listeners: adding one would hold the process again.
    worker.unref();
    return {
      hold: (pending) => (pending ? worker.ref() : worker.unref()),
      stop: () => worker.terminate(),
    };
  },
};
