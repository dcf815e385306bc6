// The data of the bench, the same here and in torch_peer.py: a pattern of hashed numbers, whose length is a prime, so
// that rows that follow one another in it are all different. Element e of a tensor is pattern[(offset + e) mod period].
import { bf16ToNumber, f16ToNumber } from "@hotset/core";

/** Elements uploaded at once. */
const chunk = 1 << 22;
export const valueOffset = 1_000_003;
/** Copies of a tensor that are cycled through lie at other offsets. */
export const copyOffset = 99_991;

/** Murmur3's last step. */
export function hash(i, seed) {
  let h = (i + Math.imul(seed, 0x9e3779b9)) >>> 0;
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Multiples of 2^-7 in [-1, 1), times `size`: any 16-bit float holds them. */
export const queriesOf = (length, size) => Float32Array.from({ length }, (_, i) => (((hash(i, 2) >>> 24) - 128) / 128) * size);

/** Scales of i8: between 1/128 and 2/128. */
export const scaleAt = (i) => (1 + (hash(i, 3) >>> 22) / 1024) / 128;

export function scalesOf(length, offset) {
  const scales = new Float32Array(length);
  for (let i = 0; i < length; i++) scales[i] = scaleAt(offset + i);
  return scales;
}

// Core's toF16 and toBf16, which take any number, are some ten times slower. Below 2^-14 the pattern's numbers are
// multiples of f16's step.
const f16Bits = (bits) => {
  const magnitude = bits & 0x7fffffff;
  const stored = magnitude < 0x38800000 ? subnormal(magnitude) : ((magnitude + 0xfff + ((magnitude >>> 13) & 1)) >>> 13) - (112 << 10);
  return ((bits >>> 16) & 0x8000) | stored;
};
const bf16Bits = (bits) => (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
const one = new Float32Array(1);
const oneBits = new Uint32Array(one.buffer);
function subnormal(magnitude) {
  oneBits[0] = magnitude;
  return one[0] * 2 ** 24;
}

/** The pattern in one dtype; `at(e)` is an element's value without its scale. */
export class Pattern {
  /** By the 16 bits. */
  #values;

  constructor(dtype, period) {
    this.dtype = dtype;
    this.period = period;
    const length = period + chunk;
    const numbers = dtype === "i8" ? new Int8Array(length) : new Float32Array(length);
    for (let i = 0; i < period; i++) {
      const h = hash(i, 1);
      numbers[i] = dtype === "i8" ? Math.max(-127, (h >>> 24) - 128) : ((h >>> 8) - 2 ** 23) / 2 ** 23;
    }
    this.stored = numbers;
    if (dtype === "f16" || dtype === "bf16") {
      this.stored = new Uint16Array(length);
      const bits = new Uint32Array(numbers.buffer);
      const round = dtype === "f16" ? f16Bits : bf16Bits;
      for (let i = 0; i < period; i++) this.stored[i] = round(bits[i]);
      this.#values = Float32Array.from({ length: 65536 }, (_, half) => (dtype === "f16" ? f16ToNumber : bf16ToNumber)(half));
    }
    for (let i = period; i < length; i += period) this.stored.copyWithin(i, 0, Math.min(period, length - i));
  }

  at(e) {
    const stored = this.stored[e % this.period];
    return this.#values ? this.#values[stored] : stored;
  }

  /** Uploads a whole tensor in parts; a device's queue is emptied now and then, so that staging memory is used again. */
  async upload(tensor, elements, offset) {
    const { BYTES_PER_ELEMENT: size, buffer } = this.stored;
    let queued = 0;
    for (let e = 0; e < elements; e += chunk) {
      const length = Math.min(chunk, elements - e);
      const place = tensor.memory.part(e * size, length * size);
      place.write(new Uint8Array(buffer, ((offset + e) % this.period) * size, length * size));
      queued += length * size;
      if (queued < 256 << 20) continue;
      await place.read(new Uint8Array(16));
      queued = 0;
    }
  }
}

/** Page j of sequence b: all pages, in no order. */
export const pageOf = (index, pages) => (index * 40503) % pages;
