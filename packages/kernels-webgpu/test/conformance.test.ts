import { conformance } from "@hotset/core/testing";
import { it } from "vitest";
import { swiftshader, without } from "../../../test/support/missing.js";
import { webgpu } from "../dist/index.js";

if (without(swiftshader !== undefined)) it.skip("conformance of webgpu swiftshader (needs chromium's vk_swiftshader)", () => {});
else await conformance(await webgpu());
