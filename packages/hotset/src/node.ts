/** Hotset in Node: every installed backend is found, and the speeds that `hotset calibrate` wrote are used. */
import { setDefaultHotset } from "@hotset/core";
import { findHotset } from "./discover.js";

setDefaultHotset(findHotset);

export * from "@hotset/core";
export { findHotset } from "./discover.js";
