/** Paged caches for cases and benches. */
import { type DType, type HostArray, rowLength } from "../../dtype.js";
import { toBf16, toF16, toI8Rows } from "../../half.js";
import type { AnyVariant } from "../../op/define.js";
import type { InputRequest, Tensors } from "../../testing/case.js";
import type { Random } from "../../testing/random.js";
import type { DecodeAxes } from "./reference.js";

/** Lengths of the sequences, given the most a sequence can hold. */
export type Lengths = (axes: DecodeAxes, random: Random) => number[];
export const full: Lengths = ({ batch, maxPages, pageSize }) => new Array<number>(batch).fill(maxPages * pageSize);
export const ragged: Lengths = ({ batch, maxPages, pageSize }, random) =>
  Array.from({ length: batch }, (_, b) => (b === 0 ? maxPages * pageSize : random.below(maxPages * pageSize + 1)));
export const of =
  (...lengths: number[]): Lengths =>
  ({ batch }) =>
    Array.from({ length: batch }, (_, b) => lengths[b % lengths.length] as number);

/**
 * A cache whose pages lie in random order; what no sequence holds (other pages, the rest of a last page) is NaN, so
 * that a token too many shows.
 */
export function cache(lengths: Lengths, spread = 1) {
  return ({ axes, variant, random }: InputRequest): Tensors => {
    const a = axes as DecodeAxes;
    const held = lengths(a, random);
    const { pageTable, filled } = placePages(a, held, random);
    const tensors: Record<string, HostArray> = {
      queries: random.values(a.batch * a.queryHeads * a.headDim, () => spread * random.normal()),
      pageTable,
      lengths: Int32Array.from(held),
    };
    Object.assign(tensors, rowsOf("key", a.headDim, a, filled, variant, random), rowsOf("value", a.valueDim, a, filled, variant, random));
    if (variant.sinks) tensors.sinks = random.values(a.queryHeads, () => 1 + random.normal());
    return Object.assign(tensors, biasesOf(a, held, variant, random));
  };
}

/** Slopes of both signs; masks that hide about a third, with what would show behind the lengths. */
export function biasesOf(axes: DecodeAxes, lengths: readonly number[], variant: AnyVariant, random: Random): Record<string, HostArray> {
  const { batch, queryHeads, maskHeads, maxPages, pageSize } = axes;
  const slopes = variant.slopes ? { slopes: random.values(queryHeads, () => 0.1 * random.normal()) } : {};
  if (!variant.mask) return slopes;
  const tokens = maxPages * pageSize;
  const width = rowLength(variant.mask as DType, tokens);
  const mask = variant.mask === "f32" ? new Float32Array(batch * maskHeads * width) : new Uint32Array(batch * maskHeads * width);
  for (let row = 0; row < batch * maskHeads; row++) {
    for (let t = 0; t < tokens; t++) {
      const seen = random.uniform() < 0.65;
      const behind = t >= (lengths[Math.floor(row / maskHeads)] as number);
      if (variant.mask === "f32") mask[row * width + t] = behind ? Number.NaN : seen ? random.normal() : Number.NEGATIVE_INFINITY;
      else if (seen || behind) mask[row * width + (t >> 5)] = (mask[row * width + (t >> 5)] as number) | (1 << (t & 31));
    }
  }
  return { ...slopes, mask };
}

/** Pages for each sequence, none twice; and how many tokens of each page are in use. */
function placePages({ batch, pages, pageSize, maxPages }: DecodeAxes, lengths: readonly number[], random: Random) {
  const free = Array.from({ length: pages }, (_, page) => page);
  const pageTable = new Int32Array(batch * maxPages).fill(-1);
  const filled = new Int32Array(pages);
  for (let b = 0; b < batch; b++) {
    for (let i = 0; i * pageSize < (lengths[b] as number); i++) {
      const [page] = free.splice(random.below(free.length), 1) as [number];
      pageTable[b * maxPages + i] = page;
      filled[page] = Math.min(pageSize, (lengths[b] as number) - i * pageSize);
    }
  }
  return { pageTable, filled };
}

function rowsOf(
  name: "key" | "value",
  width: number,
  { pages, kvHeads, pageSize }: DecodeAxes,
  filled: Int32Array,
  variant: AnyVariant,
  random: Random,
): Record<string, HostArray> {
  const slots = pages * kvHeads * pageSize;
  const values = random.values(slots * width, () => random.normal());
  const used = (slot: number): boolean => slot % pageSize < (filled[Math.floor(slot / (kvHeads * pageSize))] as number);
  const dtype = variant.keyPages as DType;
  if (dtype === "i8") {
    const { data, scale } = toI8Rows(values, width);
    for (let slot = 0; slot < slots; slot++) scale[slot] = used(slot) ? (scale[slot] as number) * random.pick([0.5, 1, 2]) : Number.NaN;
    return { [`${name}Pages`]: data, [`${name}Scale`]: scale };
  }
  for (let slot = 0; slot < slots; slot++) if (!used(slot)) values.fill(Number.NaN, slot * width, (slot + 1) * width);
  return { [`${name}Pages`]: dtype === "f16" ? toF16(values) : dtype === "bf16" ? toBf16(values) : values };
}

/** Full caches of large sizes, quick to make: a million values over and over, in pages in another order. */
export function benchCache({ axes, variant, random }: InputRequest): Tensors {
  const held = new Array<number>(axes.batch as number).fill((axes.maxPages as number) * (axes.pageSize as number));
  const { batch, queryHeads, kvHeads, headDim, valueDim, pages, pageSize, maxPages } = axes as DecodeAxes;
  const pattern = random.values(2 ** 20 + 1, () => 2 * random.uniform() - 1);
  const stored = (name: "key" | "value", width: number): Record<string, HostArray> => {
    const slots = pages * kvHeads * pageSize;
    const values = new Float32Array(slots * width);
    for (let at = 0; at < values.length; at += pattern.length)
      values.set(pattern.subarray(0, Math.min(pattern.length, values.length - at)), at);
    const dtype = variant.keyPages as DType;
    if (dtype === "f32") return { [`${name}Pages`]: values };
    if (dtype === "f16") return { [`${name}Pages`]: toF16(values) };
    if (dtype === "bf16") return { [`${name}Pages`]: toBf16(values) };
    const { data, scale } = toI8Rows(values, width);
    return { [`${name}Pages`]: data, [`${name}Scale`]: scale };
  };
  return {
    queries: random.values(batch * queryHeads * headDim, () => random.normal()),
    ...stored("key", headDim),
    ...stored("value", valueDim),
    pageTable: Int32Array.from({ length: batch * maxPages }, (_, i) => (i * 7919) % pages),
    lengths: Int32Array.from(held),
    ...(variant.sinks ? { sinks: random.values(queryHeads, () => random.normal()) } : {}),
    ...biasesOf(axes as DecodeAxes, held, variant, random),
  };
}
