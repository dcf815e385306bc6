import { HotsetError } from "../../errors.js";
import type { HashTable } from "./hash-table.js";

export interface AuditedState {
  readonly blocks: number;
  readonly blockSize: number;
  readonly references: Int32Array;
  readonly parent: Int32Array;
  readonly children: Int32Array;
  readonly state: Uint8Array;
  readonly free: Int32Array;
  readonly cached: number;
  readonly table: HashTable;
  readonly requests: readonly { readonly blocks: readonly number[]; readonly tokens: number; readonly equals: readonly number[] }[];
}

/**
 * The invariants of the block manager:
 * 1. every block is free once, or in use, or cached; the three counts add up to the pool;
 * 2. references are the requests that hold the block or its equal, parents of blocks in use are in use, and free and cached blocks have none;
 * 3. a block is found by its hash exactly if its state says so, and the table holds nothing else;
 * 4. a found block's parent is found (so no child outlives its parent), and its children are counted;
 * 5. a request has exactly the blocks its tokens need, none of them twice.
 */
export function audit({ blocks, blockSize, references, parent, children, state, free, cached, table, requests }: AuditedState): void {
  const must = (holds: boolean, expected: string, received: string): void => {
    if (!holds) throw new HotsetError("internal", { where: "KvBlockManager.audit", expected, received });
  };
  const isFree = new Uint8Array(blocks);
  for (const block of free) {
    must(!isFree[block], "a block to be free once", `block ${block} twice`);
    isFree[block] = 1;
  }
  const held = new Int32Array(blocks);
  for (const { blocks: own, tokens, equals } of requests) {
    must(own.length === Math.ceil(tokens / blockSize), `${Math.ceil(tokens / blockSize)} blocks for ${tokens} tokens`, `${own.length}`);
    must(new Set(own).size === own.length, "a request's blocks to differ", own.join(" "));
    for (const block of [...own, ...equals]) held[block] = (held[block] as number) + 1;
  }
  const counted = new Int32Array(blocks);
  let [idle, found, inUse] = [0, 0, 0];
  for (let block = 0; block < blocks; block++) {
    must(references[block] === held[block], `${held[block]} references to block ${block}`, `${references[block]}`);
    const isFound = table.find(table.hashes, block * 4) === block;
    if (isFree[block]) {
      must(references[block] === 0 && state[block] === 0, `free block ${block} to be unused`, `state ${state[block]}`);
      continue;
    }
    must(state[block] !== 0, `block ${block} to be free or in use`, "neither");
    if (references[block]) inUse++;
    else idle++;
    if (state[block] !== 2) continue;
    found++;
    must(isFound, `block ${block} to be found by its hash`, "another or none");
    const above = parent[block] as number;
    if (above < 0) continue;
    must(references[block] === 0 || (references[above] as number) > 0, `the parent of block ${block} to be in use`, "not");
    must(state[above] === 2, `the parent of block ${block} to be found`, `state ${state[above]}`);
    counted[above] = (counted[above] as number) + 1;
  }
  must(found === table.size, `${found} hashes in the table`, `${table.size}`);
  must(idle === cached, `${idle} cached blocks`, `${cached}`);
  must(free.length + idle + inUse === blocks, `${blocks} blocks`, `${free.length} free, ${idle} cached, ${inUse} in use`);
  for (let block = 0; block < blocks; block++)
    must(children[block] === counted[block], `${counted[block]} children of block ${block}`, `${children[block]}`);
}
