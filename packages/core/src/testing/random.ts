/** Seeded numbers: the same on every engine and platform. */
export class Random {
  #a: number;
  #b: number;
  #c: number;
  #d = 1;

  /** A seed is any text, so that a case's name can be one. */
  constructor(seed: string) {
    let hash = 0x811c9dc5;
    for (let i = 0; i < seed.length; i++) hash = Math.imul(hash ^ seed.charCodeAt(i), 0x01000193);
    this.#a = hash;
    this.#b = Math.imul(hash, 0x9e3779b1);
    this.#c = hash ^ 0x5bd1e995;
    for (let i = 0; i < 12; i++) this.bits();
  }

  /** 32 random bits (sfc32). */
  bits(): number {
    const sum = (this.#a + this.#b + this.#d++) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }

  /** At least 0, below 1. */
  uniform(): number {
    return this.bits() / 2 ** 32;
  }

  /** A whole number from 0 to n - 1. */
  below(n: number): number {
    return Math.floor(this.uniform() * n);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.below(values.length)] as T;
  }

  /** Mean 0, deviation 1. Sums of uniforms, so that no engine's log or cos can change a bit. */
  normal(): number {
    let sum = 0;
    for (let i = 0; i < 12; i++) sum += this.uniform();
    return sum - 6;
  }

  /** `length` values of a function, rounded to f32. */
  values(length: number, value: () => number): Float32Array {
    const out = new Float32Array(length);
    for (let i = 0; i < length; i++) out[i] = value();
    return out;
  }
}
