/** Hotset in Node: every installed backend is found, and the speeds that `hotset calibrate` wrote are used. */
import { setDefaultHotset } from "@hotset/core";
import { findHotset } from "./discover.js";

setDefaultHotset(findHotset);

export * from "@hotset/core";
export { type OpenFileSettings, openIndex, saveIndex } from "@hotset/core/node";
export { findHotset } from "./discover.js";
