/** The builds as modules, so that a bundler takes them along and a page fetches only the one it uses. */
import { BackendLoadError } from "@hotset/core/backend";
import type { BuildFile } from "./host.js";

const modules: Readonly<Record<BuildFile, () => Promise<{ base64: string }>>> = {
  simd: () => import("./embedded/simd.js"),
  relaxed: () => import("./embedded/relaxed.js"),
  "simd-threads": () => import("./embedded/simd-threads.js"),
  "relaxed-threads": () => import("./embedded/relaxed-threads.js"),
};

/** The bytes of a build. Throws BackendLoadError where its module cannot be loaded. */
export async function embedded(file: BuildFile): Promise<Uint8Array<ArrayBuffer>> {
  try {
    const { base64 } = await modules[file]();
    return Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  } catch (cause) {
    throw new BackendLoadError({
      where: "wasm",
      expected: `the module of the ${file} build`,
      received: (cause as Error).message,
      hint: "Serve all files that the bundler wrote.",
      cause,
    });
  }
}
