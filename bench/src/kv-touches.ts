/**
 * `node bench/dist/kv-touches.js`: block touches a second of KvBlockManager, over known hashes in batch calls, on a full
 * pool of a million blocks; for each policy, requests of 64, 256 and 1024 blocks in a shuffled order.
 */
import { blockHashes, KvBlockManager } from "@hotset/core/kv-cache";
import { median, once } from "./timing.js";

const pool = 1_000_000;
const blockSize = 4;

for (const policy of ["lru", "hazard"] as const)
  for (const length of [64, 256, 1024]) {
    const manager = new KvBlockManager({ blocks: pool, blockSize, policy });
    const requests = Math.floor(pool / length);
    const hashes: Uint32Array[] = [];
    for (let r = 0; r < requests; r++) {
      const tokens = Int32Array.from({ length: length * blockSize }, (_, i) => (i < blockSize ? r : i));
      const request = manager.acquire(tokens);
      manager.computed(request.id, tokens.length);
      manager.release(request.id);
      hashes.push(blockHashes(tokens, blockSize));
    }
    // A fixed shuffle: neighbours in time are not neighbours in memory.
    const order = Array.from({ length: requests }, (_, i) => (i * 7919) % requests);
    let touched = 0;
    const round = (): void => {
      for (const r of order) touched += manager.touch(hashes[r] as Uint32Array);
    };
    round();
    const times = Array.from({ length: 7 }, () => once(round));
    manager.audit();
    if (touched !== 8 * requests * length) throw new Error("not every block was found");
    const rate = (requests * length) / (1e3 * median(times));
    console.log(
      `${policy.padEnd(7)} ${String(length).padStart(5)} blocks a call: ${rate.toFixed(1)} million touches/s (aim 2.0): ${rate >= 2 ? "met" : "missed"}`,
    );
  }
