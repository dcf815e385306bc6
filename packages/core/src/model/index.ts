/** The layers of a Llama-architecture model besides attention, and the model itself. */
export { embedding } from "./embedding/spec.js";
export { linear } from "./linear/spec.js";
export { rmsNorm } from "./rms-norm/spec.js";
export { swiglu } from "./swiglu/spec.js";
