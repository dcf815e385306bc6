/** Which format a model file has. */
import { FormatError } from "../errors.js";
import { looksLikeSafetensors } from "../safetensors.js";
import type { LoadedModel } from "./config.js";
import { readGguf } from "./formats/gguf.js";
import { isGguf } from "./formats/gguf-file.js";
import { looksLikeLlama2c, readLlama2c } from "./formats/llama2c.js";
import { readSafetensorsModel } from "./formats/safetensors.js";

/**
 * Reads a model: a llama2.c .bin, a GGUF file, or safetensors files (all shards, in any order) with the text of their
 * config.json. Throws FormatError.
 */
export function readModel(source: Uint8Array | readonly Uint8Array[], config?: string): LoadedModel {
  const files = source instanceof Uint8Array ? [source] : source;
  const [bytes = new Uint8Array()] = files;
  if (isGguf(bytes)) return readGguf(bytes);
  if (looksLikeSafetensors(bytes) || config !== undefined) {
    if (config === undefined) throw new FormatError({ where: "safetensors model", expected: "the text of config.json", received: "none" });
    return readSafetensorsModel(files, config);
  }
  if (looksLikeLlama2c(bytes)) return readLlama2c(bytes);
  throw new FormatError({
    where: "openModel",
    expected: "a llama2.c, GGUF or safetensors model",
    received:
      bytes.length === 0
        ? "an empty file"
        : `a file of ${bytes.length} bytes that begins with ${[...bytes.subarray(0, 8)].map((byte) => byte.toString(16).padStart(2, "0")).join(" ")}`,
  });
}
