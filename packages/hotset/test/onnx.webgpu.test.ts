/** Made ONNX cases on the WebGPU kernels, on a driver that computes on the CPU: a few, of each operator. */
import { webgpu } from "@hotset/kernels-webgpu";
import { it } from "vitest";
import { swiftshader, without } from "../../../test/support/missing.js";
import { onnxOn } from "./support/onnx-on.js";

if (without(swiftshader !== undefined)) it.skip("ONNX's cases on WebGPU (needs chromium's vk_swiftshader)", () => {});
else onnxOn("webgpu", () => webgpu());
