/** attention/decode-sparse: what lists hold is looked up first (attention/decode-sparse.wgsl), then as attention/decode.wgsl. */
import type { KernelRequest } from "@hotset/core/backend";
import type { DeviceFacts, Program } from "../program.js";
import { program } from "./decode.js";

export const decodeSparse = (request: KernelRequest, facts: DeviceFacts): Program | string =>
  program(request, facts, "listed", "attention/decode-sparse");
