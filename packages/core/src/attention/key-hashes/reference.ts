import type { ReferenceCall } from "../../op/define.js";

export interface KeyHashesTensors {
  keys: Float32Array;
  slots: Int32Array;
  hashPages: Uint32Array;
}

export type KeyHashesAxes = Record<"tokens" | "kvHeads" | "bits" | "pages" | "pageSize", number>;

/** Bit i of a key's hash: whether its component i is below 0. */
export function reference({ axes, tensors, fail }: ReferenceCall): void {
  const { tokens, kvHeads, bits, pages, pageSize } = axes as KeyHashesAxes;
  const { keys, slots, hashPages } = tensors as KeyHashesTensors;
  for (let t = 0; t < tokens; t++) {
    const slot = slots[t] as number;
    if (slot === -1) continue;
    if (slot < 0 || slot >= pages * pageSize) {
      fail("slots", t, slot);
      continue;
    }
    for (let head = 0; head < kvHeads; head++) {
      const key = keys.subarray((t * kvHeads + head) * bits, (t * kvHeads + head + 1) * bits);
      hashPages.set(hashOf(key), (((Math.floor(slot / pageSize) * kvHeads + head) * pageSize + (slot % pageSize)) * bits) / 32);
    }
  }
}

export function hashOf(key: Float32Array): Uint32Array {
  const words = new Uint32Array(key.length / 32);
  for (const [i, x] of key.entries()) if (x < 0) words[i >> 5] = (words[i >> 5] as number) | (1 << (i & 31));
  return words;
}
