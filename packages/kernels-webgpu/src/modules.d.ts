/** Written by scripts/build-webgpu.mjs from the .wgsl files of this folder: text by path without the ending. */
declare module "*/embedded/shaders.js" {
  export const shaders: Readonly<Record<string, string>>;
}
