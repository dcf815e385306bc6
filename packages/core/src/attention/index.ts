/** Attention: finding the tokens worth attending to. */
export { decode } from "./decode/spec.js";
export { decodeAnchor } from "./decode-anchor/spec.js";
export { decodeSparse } from "./decode-sparse/spec.js";
export { merge } from "./merge/spec.js";
export { select } from "./select/spec.js";
