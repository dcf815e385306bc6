/** What an eviction policy is asked, and what it may know. Blocks are numbers `0 .. blocks - 1`. */
export interface EvictionPolicy {
  /** A request begins; its blocks follow. Policies that know no requests leave it out. */
  begin?(request: RequestContext): void;
  /** The request's reply has ended, and how is known. */
  end?(request: RequestContext): void;
  /** A resident block is used again. */
  touch(block: number, position: number): void;
  /** A block is not resident. Called once, before room is made for it: the place to read ghost lists. */
  miss(block: number, position: number): void;
  /** Names the resident block to evict, and removes nothing. Called only while something is resident. */
  victim(incoming: number, position: number): number;
  /** A resident block leaves. It need not be the one `victim` named. */
  remove(block: number): void;
  /** A block enters; room has been made, and it was missed before. */
  insert(block: number, position: number): void;
}

/** Of the request whose blocks are used now. One object, filled anew for each request. */
export interface RequestContext {
  /** Number of the request, from 0. */
  request: number;
  /** Its blocks are `blocks[from .. to)`. What lies beyond is the future, and not to be read. */
  readonly blocks: Int32Array;
  from: number;
  to: number;
  /** How the reply ended (a tool call, a final answer): a number from 1; 0 where that is not known. */
  reply: number;
}

/** What a policy is made from. Only the oracles look at `blocks`. */
export interface PolicySetting {
  /** Blocks the cache holds, at least 1. */
  readonly capacity: number;
  /** How many different blocks there are. */
  readonly unique: number;
  /** Whether a block counts as hit only where all blocks before it in its request are resident too. Default false. */
  readonly prefixHits?: boolean;
}
