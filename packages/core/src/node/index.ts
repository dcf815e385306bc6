/** What only Node can do: threads of this process, the cache folder, files checked before they are loaded. */
export { cacheFolder, checkCacheFolder, machineKey, readConstants, writeConstants } from "./cache.js";
export { type OpenFileSettings, openIndex, saveIndex } from "./index-file.js";
export { type Manifest, readChecked } from "./manifest.js";
export { availableThreads, threadSetting } from "./threads.js";
export { openTrace } from "./trace.js";
export { readWhole, writeWhole } from "./whole-file.js";
