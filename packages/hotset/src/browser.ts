/**
 * Hotset in browsers and bundles: the wasm and js backends. Others are passed by the author:
 * `createHotset({ backends: [() => webgpu({ device }), () => wasm()] })`.
 */
import { createHotset, setDefaultHotset } from "@hotset/core";
import { wasm } from "@hotset/kernels-wasm";

setDefaultHotset(() => createHotset({ backends: [{ id: "wasm", load: () => wasm() }] }));

export * from "@hotset/core";
