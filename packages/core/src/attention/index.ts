/** Attention: finding the tokens worth attending to. */
export { decode } from "./decode/spec.js";
export { merge } from "./merge/spec.js";
export { prefill } from "./prefill/spec.js";
export { rope } from "./rope/spec.js";
