/** Finding the backends that are installed beside this package. */
import { readFileSync } from "node:fs";
import { type BackendLoader, createHotset, type Hotset } from "@hotset/core";
import { BackendLoadError } from "@hotset/core/backend";
import { machineKey, readConstants } from "@hotset/core/node";

/** This package's version: measured speeds are kept per version. */
export const version: string = (JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as { version: string })
  .version;

// Not spelt out for bundlers: it is there only where somebody has a GPU and installed it.
const cudaPackage: string = "@hotset/kernels-cuda";
const loadCuda = (): Promise<typeof import("@hotset/kernels-cuda")> => import(cudaPackage);

const loaders: readonly BackendLoader[] = [
  { id: "cuda", load: () => installed(cudaPackage, loadCuda()).then(({ cuda }) => cuda()) },
  { id: "native", load: () => installed("@hotset/kernels-native", import("@hotset/kernels-native")).then(({ native }) => native()) },
  { id: "webgpu", load: () => installed("@hotset/kernels-webgpu", import("@hotset/kernels-webgpu")).then(({ webgpu }) => webgpu()) },
  { id: "wasm", load: () => installed("@hotset/kernels-wasm", import("@hotset/kernels-wasm")).then(({ wasm }) => wasm()) },
];

/** Every backend that is installed and loads, with the reasons for the others, and this machine's measured speeds. */
export async function findHotset(): Promise<Hotset> {
  const hotset = await createHotset({ backends: loaders });
  const constants = readConstants(machineKey(hotset.backends, version));
  if (constants) hotset.constants = constants;
  return hotset;
}

async function installed<T>(name: string, module: Promise<T>): Promise<T> {
  try {
    return await module;
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "ERR_MODULE_NOT_FOUND") throw cause;
    throw new BackendLoadError({ where: name, expected: "to be installed", received: "it is not", hint: `npm i ${name}`, cause });
  }
}
