/** Attention: finding the tokens worth attending to. */
export { decode } from "./decode/spec.js";
export { merge } from "./merge/spec.js";
