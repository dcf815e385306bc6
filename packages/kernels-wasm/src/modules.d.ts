/** Written by scripts/build-wasm.mjs, beside the compiled files. */
declare module "*/embedded/simd.js" {
  export const base64: string;
}
declare module "*/embedded/relaxed.js" {
  export const base64: string;
}
declare module "*/embedded/simd-threads.js" {
  export const base64: string;
}
declare module "*/embedded/relaxed-threads.js" {
  export const base64: string;
}
