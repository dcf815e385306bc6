import type { ReferenceCall } from "../../op/define.js";
import { attend, type DecodeAxes, type DecodeTensors, type Seen } from "../decode/reference.js";

export interface SparseTensors extends DecodeTensors {
  selected: Int32Array;
}
export type SparseAxes = DecodeAxes & Record<"granularity" | "lists" | "k", number>;

/** attention/decode, each head over the tokens of its list. */
export function reference(call: ReferenceCall): void {
  const { batch, queryHeads, kvHeads, lists } = call.axes as SparseAxes;
  const tokens = listedTokens(call);
  for (let b = 0; b < batch; b++)
    for (let h = 0; h < queryHeads; h++) {
      const list = Math.floor((h * lists) / queryHeads);
      attend(call, b, h, Math.floor((h * kvHeads) / queryHeads), tokens[b * lists + list] as Seen);
    }
}

/** Tokens that each list holds, and their positions in the cache, in its order. Reports what is out of range, in the order of the ports. */
export function listedTokens({ axes, tensors, scalars, fail }: ReferenceCall): Seen[] {
  const { batch, pages, pageSize, maxPages, granularity, lists, k } = axes as SparseAxes;
  const { pageTable, lengths, selected } = tensors as SparseTensors;
  const badPages = new Map<number, number>();
  const badEntries = new Map<number, number>();
  const listed: Seen[] = [];
  for (let at = 0; at < batch * lists; at++) {
    const positions: number[] = [];
    const seen: number[] = [];
    listed.push({ positions, tokens: seen });
    const b = Math.floor(at / lists);
    const length = lengths[b] as number;
    if (length < 0 || length > maxPages * pageSize) continue;
    const first = scalars.window ? Math.max(0, length - scalars.window) : 0;
    for (let entry = at * k; entry < (at + 1) * k; entry++) {
      const granule = selected[entry] as number;
      if (granule === -1) continue;
      if (granule < 0 || granule * granularity >= length) {
        badEntries.set(entry, granule);
        continue;
      }
      for (let t = Math.max(first, granule * granularity); t < Math.min(length, (granule + 1) * granularity); t++) {
        const place = b * maxPages + Math.floor(t / pageSize);
        const page = pageTable[place] as number;
        if (page < 0 || page >= pages) badPages.set(place, page);
        else {
          positions.push(page * pageSize + (t % pageSize));
          seen.push(t);
        }
      }
    }
  }
  for (const [place, page] of inOrder(badPages)) fail("pageTable", place, page);
  for (let b = 0; b < batch; b++) {
    const length = lengths[b] as number;
    if (length < 0 || length > maxPages * pageSize) fail("lengths", b, length);
  }
  for (const [entry, granule] of inOrder(badEntries)) fail("selected", entry, granule);
  return listed;
}

const inOrder = (entries: Map<number, number>): [number, number][] => [...entries].sort(([a], [b]) => a - b);
