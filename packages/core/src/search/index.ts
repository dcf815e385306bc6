/** Embedding search: finding the vectors worth reading. */
export { scan } from "./scan/spec.js";
