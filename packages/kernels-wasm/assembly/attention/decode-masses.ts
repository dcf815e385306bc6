// Masses of granules: while a tile is met, the sums of its weights and the logits they are relative to, four heads at a time.
import { math } from "../lib/exp";
import { Decode, HEADS, PIECE } from "./decode-shape";

/** The granules of a chunk have no weights yet. `decode.offset`: its first token. */
export function begin_masses(decode: Decode, sequence: u32, unit: u32, chunk: u32): void {
  const first = decode.offset / decode.granularity + chunk;
  const last = (decode.offset + decode.left - 1) / decode.granularity + chunk;
  for (let block: u32 = 0; block < decode.blocks; block++) {
    const place = decode.mass(sequence, unit, block);
    for (let g = first; g <= last; g++) {
      v128.store(place + g * 32, f32x4.splat(-Infinity));
      v128.store(place + g * 32, f32x4.splat(0), 16);
    }
  }
}

/** Where the weights of each granule lie in the tile, as place_rows puts them; an empty piece ends the list. */
export function find_pieces(decode: Decode, tokens: u32): void {
  const granules = decode.tile_granules();
  const quarter = tokens >> 2;
  let piece = decode.pieces();
  for (let i: u32 = 0; i < tokens; ) {
    const rest = i >= 4 * quarter;
    const stop = rest ? tokens : (i / quarter + 1) * quarter;
    const start = i;
    const granule = load<u32>(granules + i * 4);
    while (i < stop && load<u32>(granules + i * 4) == granule) i++;
    store<u32>(piece, granule);
    store<u32>(piece, rest ? start : (start % quarter) * 4 + start / quarter, 4);
    store<u32>(piece, i - start, 8);
    store<u32>(piece, rest ? 1 : 4, 12);
    piece += PIECE;
  }
  store<u32>(piece, 0, 8);
}

/** Adds the weights [tokens][4] of a tile, which are relative to `largest`. */
export function add_masses(decode: Decode, masses: usize, chunk: u32, weights: usize, largest: v128): void {
  for (let piece = decode.pieces(); load<u32>(piece, 8) > 0; piece += PIECE) {
    const step: usize = load<u32>(piece, 12) * 16;
    let at = weights + load<u32>(piece, 4) * 16;
    let sum = f32x4.splat(0);
    for (let n = load<u32>(piece, 8); n > 0; n--, at += step) sum = f32x4.add(sum, v128.load(at));
    const place = masses + (load<u32>(piece) + chunk) * 32;
    const before = v128.load(place);
    // What was added before is rare to be here: a granule that ended the last tile.
    if (!i32x4.all_true(f32x4.eq(before, largest))) {
      const earlier = v128.load(place, 16);
      const none = f32x4.eq(earlier, f32x4.splat(0));
      const same = f32x4.eq(before, largest);
      const factor = v128.bitselect(f32x4.splat(1), math.exp(f32x4.sub(before, largest)), same);
      sum = f32x4.add(sum, v128.andnot(f32x4.mul(earlier, factor), none));
    } else sum = f32x4.add(sum, v128.load(place, 16));
    v128.store(place, largest);
    v128.store(place, sum, 16);
  }
}

/** Adds a block's masses to the mean of its KV head's, whose first block writes what no chunk holds, too. */
export function write_masses(decode: Decode, sequence: u32, unit: u32, block: u32, chunks: u32, each: u32, base: v128, sum: v128): void {
  const all = decode.granules();
  const out = decode.masses + (sequence * decode.units + unit) * all * 4;
  if (block == 0) memory.fill(out, 0, all * 4);
  const held = decode.group - block * HEADS;
  const lanes = v128.bitselect(f32x4(1, 1, 1, 1), f32x4.splat(0), i32x4.gt_s(i32x4.splat(min(held, HEADS)), i32x4(0, 1, 2, 3)));
  // Lanes of no head, and heads without weights, add nothing.
  const none = v128.or(f32x4.eq(sum, f32x4.splat(0)), f32x4.eq(lanes, f32x4.splat(0)));
  const by = f32x4.div(lanes, f32x4.mul(sum, f32x4.splat(<f32>decode.group)));
  const masses = decode.mass(sequence, unit, block);
  const tokens = decode.tokens(sequence, unit);
  const start = load<u32>(decode.range(sequence));
  for (let chunk: u32 = 0; chunk < chunks; chunk++) {
    const first = start + chunk * each;
    const last = first + min(each, tokens - chunk * each) - 1;
    for (let g = first / decode.granularity, end = last / decode.granularity; g <= end; g++) {
      const place = masses + (g + chunk) * 32;
      const weight = f32x4.mul(math.exp(f32x4.sub(v128.load(place), base)), v128.load(place, 16));
      const mass = v128.andnot(f32x4.mul(weight, by), none);
      const two = f32x4.add(mass, v128.shuffle<i32>(mass, mass, 2, 3, 0, 1));
      const total = f32x4.extract_lane(two, 0) + f32x4.extract_lane(two, 1);
      store<f32>(out + g * 4, load<f32>(out + g * 4) + total);
    }
  }
}
