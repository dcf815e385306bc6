/** Made ONNX cases on the CUDA kernels, compiled for the CPU. */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { cuda } from "@hotset/kernels-cuda";
import { it } from "vitest";
import { without } from "../../../test/support/missing.js";
import { onnxOn } from "./support/onnx-on.js";

const addon = fileURLToPath(new URL("../../kernels-cuda/build/emulated/addon/hotset-cuda-emulated.node", import.meta.url));

if (without(existsSync(addon))) it.skip("ONNX's cases on CUDA kernels (needs g++ and cmake)", () => {});
else onnxOn("cuda emulated", () => cuda({ emulated: true }));
