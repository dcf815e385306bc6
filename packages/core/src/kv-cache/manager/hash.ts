/**
 * 128-bit hashes of KV blocks, four u32 words each. The hash of a block stands for its tokens, all tokens before them,
 * and the extra keys (a tenant's salt, an adapter, images): equal hashes mean an equal prefix. MurmurHash3_x86_128
 * (Appleby, public domain), where a block starts from its parent's hash. It is no cryptographic hash: tenants who do not
 * trust each other need salts of their own.
 */
export const hashWords = 4;

/** The parent of first blocks: a hash of the extra keys. */
export function rootHash(extra: readonly string[]): Uint32Array {
  const state = new Uint32Array(hashWords);
  for (const key of extra) {
    const bytes = new TextEncoder().encode(key);
    const words = new Uint32Array(Math.ceil(bytes.length / 4));
    for (const [i, byte] of bytes.entries()) words[i >> 2] = ((words[i >> 2] as number) | (byte << (8 * (i & 3)))) >>> 0;
    // The length keeps "ab", "c" and "a", "bc" apart.
    mix(state, 0, words, 0, words.length, bytes.length, state, 0);
  }
  return state;
}

/**
 * `[full blocks, 4]` hashes of the full blocks of `tokens`; what is left over has none. `known` are the first of them,
 * where they were computed before.
 */
export function blockHashes(
  tokens: ArrayLike<number>,
  blockSize: number,
  extra: readonly string[] = [],
  known: Uint32Array = new Uint32Array(),
): Uint32Array {
  const full = Math.floor(tokens.length / blockSize);
  const hashes = new Uint32Array(full * hashWords);
  hashes.set(known);
  const root = rootHash(extra);
  for (let block = known.length / hashWords; block < full; block++)
    mix(
      block ? hashes : root,
      block ? (block - 1) * hashWords : 0,
      tokens,
      block * blockSize,
      blockSize,
      4 * blockSize,
      hashes,
      block * hashWords,
    );
  return hashes;
}

function mix(
  parent: Uint32Array,
  parentAt: number,
  words: ArrayLike<number>,
  from: number,
  count: number,
  bytes: number,
  out: Uint32Array,
  outAt: number,
): void {
  let a = parent[parentAt] as number;
  let b = parent[parentAt + 1] as number;
  let c = parent[parentAt + 2] as number;
  let d = parent[parentAt + 3] as number;
  for (let i = 0; i < count; i += 4) {
    const at = from + i;
    a ^= scrambled(words[at] as number, 0x239b961b, 15, 0xab0e9789);
    a = (Math.imul(((a << 19) | (a >>> 13)) + b, 5) + 0x561ccd1b) | 0;
    b ^= scrambled(i + 1 < count ? (words[at + 1] as number) : 0, 0xab0e9789, 16, 0x38b34ae5);
    b = (Math.imul(((b << 17) | (b >>> 15)) + c, 5) + 0x0bcaa747) | 0;
    c ^= scrambled(i + 2 < count ? (words[at + 2] as number) : 0, 0x38b34ae5, 17, 0xa1e38b93);
    c = (Math.imul(((c << 15) | (c >>> 17)) + d, 5) + 0x96cd1c35) | 0;
    d ^= scrambled(i + 3 < count ? (words[at + 3] as number) : 0, 0xa1e38b93, 18, 0x239b961b);
    d = (Math.imul(((d << 13) | (d >>> 19)) + a, 5) + 0x32ac3b17) | 0;
  }
  a ^= bytes;
  b ^= bytes;
  c ^= bytes;
  d ^= bytes;
  a = (a + b + c + d) | 0;
  b = (b + a) | 0;
  c = (c + a) | 0;
  d = (d + a) | 0;
  a = finished(a);
  b = finished(b);
  c = finished(c);
  d = finished(d);
  a = (a + b + c + d) | 0;
  out[outAt] = a;
  out[outAt + 1] = b + a;
  out[outAt + 2] = c + a;
  out[outAt + 3] = d + a;
}

function scrambled(word: number, before: number, turn: number, after: number): number {
  const k = Math.imul(word | 0, before);
  return Math.imul((k << turn) | (k >>> (32 - turn)), after);
}

function finished(word: number): number {
  let h = word ^ (word >>> 16);
  h = Math.imul(h, 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return h ^ (h >>> 16);
}
