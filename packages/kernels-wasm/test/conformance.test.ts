import { setFlagsFromString } from "node:v8";
import { conformance } from "@hotset/core/testing";
import { wasm, wasmBuilds } from "../dist/node.js";

// Node 20 has relaxed SIMD behind a flag; without a build that uses it, half of this package would go untested there.
setFlagsFromString("--experimental-wasm-relaxed-simd");

for (const build of wasmBuilds()) {
  await conformance(await wasm({ build, shared: false }));
  for (const threads of [2, 5]) await conformance(await wasm({ build, threads }));
}
