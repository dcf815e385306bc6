import type { ReferenceCall } from "../../op/define.js";

/** State words before the arrays: magic, blocks, free blocks, head and tail of the free queue, three spare. */
export const headerWords = 8;
export const poolMagic = 0x4c4f4f50;
const none = 0xffffffff;
const [magicAt, blocksAt, freeAt, headAt, tailAt] = [0, 1, 2, 3, 4];

/** Then references [blocks], previous [blocks] and next [blocks]; the links mean something only in the free queue. */
export function reference({ axes, tensors, fail }: ReferenceCall): void {
  const { blocks, count } = axes as Record<"blocks" | "count", number>;
  const { state, commands, results } = tensors as { state: Uint32Array; commands: Uint32Array; results: Int32Array };
  const referencesAt = headerWords;
  const previousAt = headerWords + blocks;
  const nextAt = headerWords + 2 * blocks;
  const get = (at: number): number => state[at] as number;

  results.fill(-1, 0, count);
  if (count === 0) return;
  if (get(magicAt) === 0 && get(blocksAt) === 0) initialise();
  if (get(magicAt) !== poolMagic || get(blocksAt) !== blocks) {
    fail("state", get(magicAt) === poolMagic ? blocksAt : magicAt, get(get(magicAt) === poolMagic ? blocksAt : magicAt));
    return;
  }
  for (let i = 0; i < count; i++) {
    const block = commands[2 * i + 1] as number;
    switch (commands[2 * i]) {
      case 0:
        results[i] = allocate();
        break;
      case 1:
        results[i] = holds(i, block) ? retain(block) : -1;
        break;
      case 2:
        results[i] = holds(i, block) ? release(i, block, false) : -1;
        break;
      case 3:
        results[i] = holds(i, block) ? release(i, block, true) : -1;
        break;
      default:
        fail("commands", 2 * i, commands[2 * i] as number);
    }
  }

  function initialise(): void {
    state.fill(0);
    state.set([poolMagic, blocks, blocks, 0, blocks - 1]);
    for (let b = 0; b < blocks; b++) {
      state[previousAt + b] = b === 0 ? none : b - 1;
      state[nextAt + b] = b === blocks - 1 ? none : b + 1;
    }
  }

  function holds(i: number, block: number): boolean {
    if (block < blocks) return true;
    fail("commands", 2 * i + 1, block);
    return false;
  }

  function allocate(): number {
    const block = get(headAt);
    if (block === none) return -1;
    if (!unlink(block, headAt)) return -1;
    state[referencesAt + block] = 1;
    return block;
  }

  function retain(block: number): number {
    if (get(referencesAt + block) === 0 && !unlink(block, referencesAt + block)) return -1;
    state[referencesAt + block] = get(referencesAt + block) + 1;
    return get(referencesAt + block) | 0;
  }

  function release(i: number, block: number, toFront: boolean): number {
    const references = get(referencesAt + block);
    if (references === 0) {
      fail("commands", 2 * i + 1, block);
      return -1;
    }
    if (references === 1 && !link(block, toFront)) return -1;
    state[referencesAt + block] = references - 1;
    return (references - 1) | 0;
  }

  /** Takes a block out of the free queue. `from` is where its number was read, for the fault. */
  function unlink(block: number, from: number): boolean {
    if (block >= blocks) return damaged(from);
    const previous = get(previousAt + block);
    const next = get(nextAt + block);
    if (previous !== none && previous >= blocks) return damaged(previousAt + block);
    if (next !== none && next >= blocks) return damaged(nextAt + block);
    state[previous === none ? headAt : nextAt + previous] = next;
    state[next === none ? tailAt : previousAt + next] = previous;
    state[freeAt] = get(freeAt) - 1;
    return true;
  }

  function link(block: number, toFront: boolean): boolean {
    const end = toFront ? headAt : tailAt;
    const neighbour = get(end);
    if (neighbour !== none && neighbour >= blocks) return damaged(end);
    state[previousAt + block] = toFront ? none : neighbour;
    state[nextAt + block] = toFront ? neighbour : none;
    if (neighbour === none) state[toFront ? tailAt : headAt] = block;
    else state[(toFront ? previousAt : nextAt) + neighbour] = block;
    state[end] = block;
    state[freeAt] = get(freeAt) + 1;
    return true;
  }

  function damaged(at: number): boolean {
    fail("state", at, get(at));
    return false;
  }
}
