export { type BatchChoice, BatchSizer, type BatchSizeSettings } from "./batch-size.js";
export {
  type BlockPlan,
  type BlockRange,
  BlockScheduler,
  type BlockSchedulerSettings,
  partitionBlocks,
  slowest,
  type WorkerSpeed,
} from "./block-scheduler.js";
export {
  type FrameMeans,
  type FramePass,
  type FrameSlot,
  frameMeans,
  frameSimilarity,
  RollingFrameCache,
  type RollingFrameSettings,
} from "./rolling-frame-cache.js";
