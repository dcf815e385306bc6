/** KV-cache blocks: keeping the ones worth keeping. */
export { poolApply, poolCommand } from "./pool-apply/spec.js";
