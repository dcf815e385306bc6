/**
 * When blocks of a class are used again, learnt from every re-use that is seen: for each class and age (references
 * since its last use, in bins of half an octave) the share of blocks that reached the bin and were used in it. A class
 * with few re-uses borrows from its parent, that one from all classes, and those from a constant share for each bin,
 * which makes the score fall as 1/age: without information the order is LRU's.
 *
 * The score of an age is the Gittins index of what is left: the largest ratio of uses expected within some time to the
 * room taken until then (Aalto et al. 2009 for unknown service times; LHD, NSDI 2018, has the same ratio over all time).
 */
export class HazardModel {
  readonly #classes: number;
  readonly #parents: number;
  /** `[class][bin]` lives that ended in a use, and lives that ended or still last without one. */
  readonly #used: Float64Array;
  readonly #unused: Float64Array;
  readonly #lasting: Float64Array;
  readonly #scores: Float64Array;

  /** Classes `c` with equal `c % parents` have one parent. */
  constructor(classes: number, parents: number) {
    this.#classes = classes;
    this.#parents = parents;
    this.#used = new Float64Array(classes * bins);
    this.#unused = new Float64Array(classes * bins);
    this.#lasting = new Float64Array(classes * bins);
    this.#scores = Float64Array.from({ length: classes * bins }, (_, at) => 1 / startOf(at % bins));
  }

  /** A block of this class was used again at this age. */
  used(of: number, age: number): void {
    const at = of * bins + binOf(age);
    this.#used[at] = (this.#used[at] as number) + 1;
  }

  /** A block of this class is no longer watched, and was not used up to this age. */
  unused(of: number, age: number): void {
    const at = of * bins + binOf(age);
    this.#unused[at] = (this.#unused[at] as number) + 1;
  }

  /** How much a block of this class and age is worth keeping. */
  score(of: number, age: number): number {
    return this.#scores[of * bins + binOf(age)] as number;
  }

  /** Computes the scores anew. `watch` calls `lasting` once for each block whose next use is waited for. */
  rebuild(watch: (lasting: (of: number, age: number) => void) => void): void {
    this.#lasting.set(this.#unused);
    watch((of, age) => {
      const at = of * bins + binOf(age);
      this.#lasting[at] = (this.#lasting[at] as number) + 1;
    });
    const all = this.#shares(0, 1, undefined);
    for (let parent = 0; parent < this.#parents; parent++) {
      const shared = this.#shares(parent, this.#parents, all);
      for (let of = parent; of < this.#classes; of += this.#parents) this.#index(of, this.#shares(of, this.#classes, shared));
    }
  }

  /** The share used in each bin among classes `first, first + step, ...` (Kaplan-Meier), drawn towards `prior`. */
  #shares(first: number, step: number, prior: Float64Array | undefined): Float64Array {
    const shares = new Float64Array(bins);
    let reached = 0;
    for (let bin = bins - 1; bin >= 0; bin--) {
      let [used, lasting] = [0, 0];
      for (let of = first; of < this.#classes; of += step) {
        used += this.#used[of * bins + bin] as number;
        lasting += this.#lasting[of * bins + bin] as number;
      }
      shares[bin] = (used + priorWeight * (prior?.[bin] ?? priorShare)) / (reached + used + lasting / 2 + priorWeight);
      reached += used + lasting;
    }
    return shares;
  }

  #index(of: number, shares: Float64Array): void {
    for (let from = 0; from < bins; from++) {
      let [left, uses, room, best] = [1, 0, 0, 0];
      for (let bin = from; bin < bins; bin++) {
        const share = shares[bin] as number;
        uses += left * share;
        room += left * (startOf(bin + 1) - startOf(bin)) * (1 - share / 2);
        left *= 1 - share;
        if (uses / room > best) best = uses / room;
      }
      this.#scores[of * bins + from] = best;
    }
  }
}

/** Two for each octave of 31. */
const bins = 62;
/** Blocks of evidence that a parent counts for, and the share of each bin where nothing is known. */
const [priorWeight, priorShare] = [512, 1 / 64];

function binOf(age: number): number {
  const whole = Math.min(Math.max(age, 1), 0x7fffffff);
  const octave = 31 - Math.clz32(whole);
  return octave === 0 ? 0 : 2 * octave + ((whole >> (octave - 1)) & 1);
}

/** The first age of a bin. Bin 1 is empty, as octave 0 is the age 1 alone. */
function startOf(bin: number): number {
  const octave = bin >> 1;
  return bin & 1 ? 1.5 * 2 ** octave : 2 ** octave;
}
