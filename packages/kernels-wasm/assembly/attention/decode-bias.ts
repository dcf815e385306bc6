// What logits are given by where their tokens stand: less for the distance from the query, and the mask.
import { DTYPE_F32 } from "../gen/params";
import { met_at } from "./decode-chunks";
import { Decode, HEADS } from "./decode-shape";

/** Of a tile and a block of heads, in the order the tokens are met; lanes of no head have 0. */
export function find_bias(decode: Decode, sequence: u32, unit: u32, block: u32, tokens: u32): usize {
  const params = decode.params;
  const bias = decode.bias();
  memory.fill(bias, 0, tokens * 16);
  const last = decode.last(sequence, unit);
  const heads = min(HEADS, decode.group - block * HEADS);
  for (let head: u32 = 0; head < heads; head++) {
    const query_head = unit * decode.group + block * HEADS + head;
    if (params.slopes != 0) add_slope(decode, tokens, last, load<f32>(params.slopes + query_head * 4), bias + head * 4);
    if (params.mask != 0)
      add_mask(decode, tokens, params.mask_heads == 1 ? sequence : sequence * params.mask_heads + query_head, bias + head * 4);
  }
  return bias;
}

function add_slope(decode: Decode, tokens: u32, last: u32, slope: f32, bias: usize): void {
  const places = decode.tile_places();
  const quarter = tokens >> 2;
  for (let i: u32 = 0; i < tokens; i++, bias += 16) store<f32>(bias, -slope * <f32>(last - load<u32>(places + met_at(i, quarter) * 4)));
}

function add_mask(decode: Decode, tokens: u32, row: u32, bias: usize): void {
  const params = decode.params;
  const places = decode.tile_places();
  const quarter = tokens >> 2;
  const all = params.max_pages * params.page_size;
  if (params.mask_dtype == DTYPE_F32) {
    const mask = params.mask + row * all * 4;
    for (let i: u32 = 0; i < tokens; i++, bias += 16)
      store<f32>(bias, load<f32>(bias) + load<f32>(mask + load<u32>(places + met_at(i, quarter) * 4) * 4));
    return;
  }
  const mask = params.mask + row * ((all + 31) >> 5) * 4;
  for (let i: u32 = 0; i < tokens; i++, bias += 16) {
    const token = load<u32>(places + met_at(i, quarter) * 4);
    const seen = (load<u32>(mask + (token >> 5) * 4) >> (token & 31)) & 1;
    if (!seen) store<f32>(bias, -Infinity);
  }
}
