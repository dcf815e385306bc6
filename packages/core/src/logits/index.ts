/** What is done with a model's logits. */
export { logprob } from "./logprob/spec.js";
export { sample } from "./sample/spec.js";
