/** attention/decode-anchor: as attention/decode.wgsl, whose kept sums attention/decode-anchor.wgsl scales at the end. */
import type { KernelRequest } from "@hotset/core/backend";
import type { DeviceFacts, Program } from "../program.js";
import { program } from "./decode.js";

export const decodeAnchor = (request: KernelRequest, facts: DeviceFacts): Program | string =>
  program(request, facts, "weighed", "attention/decode-anchor");
