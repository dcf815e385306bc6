/** KV-cache blocks: keeping the ones worth keeping. */

export { type KvBlockEvent, KvBlockManager, type KvBlockManagerSettings, type KvRequest } from "./manager/block-manager.js";
export { blockHashes } from "./manager/hash.js";
export { poolApply, poolCommand } from "./pool-apply/spec.js";
export { type AgentSettings, agentSessions } from "./replay/agents.js";
export { readTrace, type TraceFormat, type TraceText, traceFormats } from "./replay/readers/index.js";
export {
  type ReplayPolicy,
  type ReplayResult,
  type ReplaySemantics,
  type ReplaySettings,
  replay,
  replayPolicies,
} from "./replay/replay.js";
export { halfOf } from "./replay/split.js";
export { type KvTrace, type RequestFacts, requestsOf, TraceBuilder } from "./replay/trace.js";
