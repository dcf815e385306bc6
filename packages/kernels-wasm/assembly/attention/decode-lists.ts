// Lists of granules: read and checked once, then met as if their tokens were a context of their own.
import { fail, Status } from "../lib/kernel";
import { add_tokens, find_range } from "./decode-chunks";
import { chunk_tokens, Decode, LIST_CHUNKS, TILE_TOKENS } from "./decode-shape";

/** One list of a sequence: its granules, how many tokens they have, and where each chunk of them begins. */
export function check_list(decode: Decode, row: u32, port: i32, status: Status): void {
  const list = decode.list(row / decode.lists, row % decode.lists);
  const range = list + 4;
  store<u32>(list, 0);
  find_range(decode, row / decode.lists, range, status);
  const length = load<i32>(range, 4);
  if (length < 0) return;
  const all = (<u64>length + decode.granularity - 1) / decode.granularity;
  const granules = decode.list_granules(list);
  let count: u32 = 0;
  let tokens: u32 = 0;
  for (let i = row * decode.k, end = i + decode.k; i < end; i++) {
    const granule = load<i32>(decode.selected + i * 4);
    if (granule == -1) continue;
    if (granule < 0 || <u64>granule >= all) {
      fail(status, port, i, granule);
      continue;
    }
    const seen = seen_tokens(decode, list, granule);
    if (seen == 0) continue;
    store<u32>(granules + count++ * 4, granule);
    tokens += seen;
  }
  store<u32>(list, tokens);
  const each = chunk_tokens(tokens);
  let before: u32 = 0;
  let chunk: u32 = 0;
  for (let entry: u32 = 0; entry < count; entry++) {
    const seen = seen_tokens(decode, list, load<u32>(granules + entry * 4));
    for (; chunk * each < before + seen; chunk++) {
      store<u32>(list + LIST_CHUNKS + chunk * 8, entry);
      store<u32>(list + LIST_CHUNKS + chunk * 8, chunk * each - before, 4);
    }
    before += seen;
  }
}

export function begin_list(decode: Decode, list: usize, chunk: u32): void {
  decode.entry = load<u32>(list + LIST_CHUNKS + chunk * 8);
  decode.offset = load<u32>(list + LIST_CHUNKS + chunk * 8, 4);
}

/** The next tile of a list. */
export function find_listed(decode: Decode, sequence: u32, kv_head: u32, list: usize, status: Status): u32 {
  let room = min(TILE_TOKENS, decode.left);
  decode.left -= room;
  let n: u32 = 0;
  while (room > 0) {
    const granule = load<u32>(decode.list_granules(list) + decode.entry * 4);
    const first = first_token(decode, list, granule) + decode.offset;
    const end = end_token(decode, list, granule);
    const stop = min(end, first + room);
    n = add_tokens(decode, sequence, kv_head, first, stop, n, status);
    room -= stop - first;
    decode.offset += stop - first;
    if (stop < end) continue;
    decode.entry++;
    decode.offset = 0;
  }
  return n;
}

/** The tokens of a granule that a sequence sees. */
function first_token(decode: Decode, list: usize, granule: u32): u32 {
  return max(granule * decode.granularity, load<u32>(list, 4));
}
function end_token(decode: Decode, list: usize, granule: u32): u32 {
  return min((granule + 1) * decode.granularity, load<u32>(list, 8));
}
function seen_tokens(decode: Decode, list: usize, granule: u32): u32 {
  const first = first_token(decode, list, granule);
  const end = end_token(decode, list, granule);
  return first < end ? end - first : 0;
}
