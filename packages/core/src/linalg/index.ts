/** Linear algebra that the families' own models need: fitting them. */
export { ridge } from "./ridge/spec.js";
