import { describe, HotsetError } from "../errors.js";

/**
 * Which experts stay when there are more than slots. `lru`, `lfu`: the latest, the most used. `lfru`: uses / (1 + tokens
 * since the last). `ema`: uses that fade by `decay` a token. `belady`: the nearest next use, which must be told; every
 * expert that is loaded is kept for the time being. `belady-bypass`: the same, and an expert whose next use is far may be used from a
 * staging slot and not kept.
 */
export type RetentionPolicy = "lru" | "lfu" | "lfru" | "ema" | "belady" | "belady-bypass";
export const retentionPolicies = ["lru", "lfu", "lfru", "ema", "belady", "belady-bypass"] as const satisfies readonly RetentionPolicy[];

export interface ExpertCacheSettings {
  readonly layers: number;
  /** Experts of each layer. */
  readonly experts: number;
  /** Experts that each layer can keep. */
  readonly slots: number;
  readonly policy: RetentionPolicy;
  /** Of `ema`: what a use still counts one token later, above 0 and at most 1; default 0.98. */
  readonly decay?: number;
  /** For counting bytes; default 0. */
  readonly expertBytes?: number;
}

/** What happened to the experts of one event, in the order they were given. Reused by the next event. */
export interface ExpertEvent {
  readonly hits: number;
  readonly misses: number;
  /** [given experts]: the slot of each; -1: it is not kept, and is used from a staging slot. */
  readonly slots: Int32Array;
  /** [given experts]: 1 where it must be loaded. */
  readonly load: Uint8Array;
}

/** Counts since the cache was made. */
export interface ExpertCounters {
  readonly events: number;
  readonly hits: number;
  readonly misses: number;
  readonly evictions: number;
  /** Misses that were not kept. */
  readonly bypassed: number;
  /** Loaded from where the experts lie: misses times expertBytes. */
  readonly bytes: number;
}

/** Next use of an expert that is never used again. */
export const never = 2 ** 31 - 1;

/**
 * Slots for the experts of each layer, and which expert lies where. It moves no bytes: it says what to load into which slot.
 *
 * An event is the set of experts that a layer needs at once. It is decided as a whole: hits are counted against what was
 * there before it; no expert of the event is evicted by another of the same event; what goes is what the policy values
 * least, of equals the one with the highest number. Numbers and sums only: two runs agree to the bit.
 *
 * Invariants: each expert lies in at most one slot of its layer, `expertSlot` and `slotExpert` are each other's inverse, and
 * slots are filled before anything is evicted.
 */
export class ExpertCache {
  readonly layers: number;
  readonly experts: number;
  readonly slots: number;
  readonly policy: RetentionPolicy;
  readonly decay: number;
  readonly expertBytes: number;
  readonly #expertSlot: Int32Array;
  readonly #slotExpert: Int32Array;
  readonly #filled: Int32Array;
  /** [layers, experts]: what the policy has noted; the highest value stays. */
  readonly #value: Float64Array;
  readonly #last: Float64Array;
  /** Of `ema`, per layer: what a use counts now. It grows by 1 / decay a token, instead of all values fading. */
  readonly #gain: Float64Array;
  readonly #clock: Float64Array;
  /** The event (plus one) in which an expert was given last. */
  readonly #given: Float64Array;
  readonly #slotsOut: Int32Array;
  readonly #loadOut: Uint8Array;
  #counters = { events: 0, hits: 0, misses: 0, evictions: 0, bypassed: 0, bytes: 0 };

  /** Throws HotsetError for sizes that are no whole numbers of at least 1, more slots than experts, or a decay out of range. */
  constructor({ layers, experts, slots, policy, decay = 0.98, expertBytes = 0 }: ExpertCacheSettings) {
    whole("layers", layers, 4096);
    whole("experts", experts, 65535);
    whole("slots", slots, experts);
    if (!retentionPolicies.includes(policy)) refuse(`a policy of ${retentionPolicies.join(", ")}`, describe(policy));
    if (!(decay > 0 && decay <= 1)) refuse("a decay above 0 and at most 1", describe(decay));
    if (!(expertBytes >= 0 && expertBytes < 2 ** 53)) refuse("expertBytes of 0 or more", describe(expertBytes));
    this.layers = layers;
    this.experts = experts;
    this.slots = slots;
    this.policy = policy;
    this.decay = decay;
    this.expertBytes = expertBytes;
    this.#expertSlot = new Int32Array(layers * experts).fill(-1);
    this.#slotExpert = new Int32Array(layers * slots).fill(-1);
    this.#filled = new Int32Array(layers);
    this.#value = new Float64Array(layers * experts);
    this.#last = new Float64Array(layers * experts);
    this.#gain = new Float64Array(layers).fill(1);
    this.#clock = new Float64Array(layers);
    this.#given = new Float64Array(layers * experts);
    this.#slotsOut = new Int32Array(slots);
    this.#loadOut = new Uint8Array(slots);
  }

  get counters(): ExpertCounters {
    return { ...this.#counters };
  }

  /** [experts]: the slot of each expert of a layer, -1 where it is not there. A view: it changes with the next event. */
  expertSlot(layer: number): Int32Array {
    this.#checkLayer(layer);
    return this.#expertSlot.subarray(layer * this.experts, (layer + 1) * this.experts);
  }

  /** [slots]: the expert in each slot of a layer, -1 for none. A view. */
  slotExpert(layer: number): Int32Array {
    this.#checkLayer(layer);
    return this.#slotExpert.subarray(layer * this.slots, (layer + 1) * this.slots);
  }

  /**
   * A layer needs these experts, all at once; at most `slots`, none twice. `nextUse` [given experts], for the Belady
   * policies: a number for each that grows with how far its next use in this layer is, `never` for none.
   * Throws HotsetError with nothing changed; more experts than slots, too.
   */
  event(layer: number, experts: ArrayLike<number>, nextUse?: ArrayLike<number>): ExpertEvent {
    this.#check(layer, experts, nextUse);
    const base = layer * this.experts;
    const counters = this.#counters;
    let hits = 0;
    for (let i = 0; i < experts.length; i++) {
      const there = (this.#expertSlot[base + (experts[i] as number)] as number) >= 0;
      this.#loadOut[i] = there ? 0 : 1;
      if (there) hits++;
    }
    this.#note(layer, experts, nextUse);
    if (this.policy === "belady-bypass") this.#keepNearest(layer, experts);
    else for (let i = 0; i < experts.length; i++) if (this.#loadOut[i]) this.#insert(layer, experts[i] as number, this.#victim(layer));
    for (let i = 0; i < experts.length; i++) this.#slotsOut[i] = this.#expertSlot[base + (experts[i] as number)] as number;
    const misses = experts.length - hits;
    counters.events++;
    counters.hits += hits;
    counters.misses += misses;
    counters.bytes += misses * this.expertBytes;
    return { hits, misses, slots: this.#slotsOut.subarray(0, experts.length), load: this.#loadOut.subarray(0, experts.length) };
  }

  #checkLayer(layer: number): void {
    if (!Number.isInteger(layer) || layer < 0 || layer >= this.layers) refuse(`a layer below ${this.layers}`, describe(layer));
  }

  #check(layer: number, experts: ArrayLike<number>, nextUse: ArrayLike<number> | undefined): void {
    this.#checkLayer(layer);
    if (experts.length > this.slots)
      throw new HotsetError("argument", {
        where: "ExpertCache",
        expected: `at least ${experts.length} slots a layer, for the experts of one event`,
        received: `${this.slots}`,
        hint: "A smaller cache would have to evict an expert that is being used.",
      });
    const told = this.policy === "belady" || this.policy === "belady-bypass";
    if (told && nextUse?.length !== experts.length)
      refuse(`the next use of each of ${experts.length} experts`, nextUse ? `${nextUse.length}` : "none");
    const mark = this.#counters.events + 1;
    for (let i = 0; i < experts.length; i++) {
      const expert = experts[i] as number;
      if (!Number.isInteger(expert) || expert < 0 || expert >= this.experts) {
        this.#unmark(layer, experts, i);
        refuse(`experts below ${this.experts}`, describe(expert));
      }
      if (this.#given[layer * this.experts + expert] === mark) {
        this.#unmark(layer, experts, i);
        refuse("distinct experts", `${expert} twice`);
      }
      this.#given[layer * this.experts + expert] = mark;
    }
  }

  #unmark(layer: number, experts: ArrayLike<number>, count: number): void {
    for (let i = 0; i < count; i++) this.#given[layer * this.experts + (experts[i] as number)] = 0;
  }

  /** What the policy learns from an event, before it decides. */
  #note(layer: number, experts: ArrayLike<number>, nextUse: ArrayLike<number> | undefined): void {
    const base = layer * this.experts;
    const now = (this.#clock[layer] as number) + 1;
    this.#clock[layer] = now;
    for (let i = 0; i < experts.length; i++) {
      const at = base + (experts[i] as number);
      if (this.policy === "lru") this.#value[at] = now;
      else if (this.policy === "lfu" || this.policy === "lfru") this.#value[at] = (this.#value[at] as number) + 1;
      else if (this.policy === "ema") this.#value[at] = (this.#value[at] as number) + (this.#gain[layer] as number);
      else this.#value[at] = -(nextUse?.[i] as number);
      this.#last[at] = now;
    }
    if (this.policy !== "ema") return;
    const gain = (this.#gain[layer] as number) / this.decay;
    this.#gain[layer] = gain;
    if (gain < 1e100) return;
    for (let expert = 0; expert < this.experts; expert++) this.#value[base + expert] = (this.#value[base + expert] as number) / gain;
    this.#gain[layer] = 1;
  }

  #worth(layer: number, expert: number): number {
    const at = layer * this.experts + expert;
    const value = this.#value[at] as number;
    return this.policy === "lfru" ? value / (1 + (this.#clock[layer] as number) - (this.#last[at] as number)) : value;
  }

  /** A free slot, or that of the expert worth least which this event does not use. */
  #victim(layer: number): number {
    const filled = this.#filled[layer] as number;
    if (filled < this.slots) return filled;
    const first = layer * this.slots;
    const mark = this.#counters.events + 1;
    let [victim, least, number] = [-1, 0, -1];
    for (let slot = 0; slot < this.slots; slot++) {
      const expert = this.#slotExpert[first + slot] as number;
      if (this.#given[layer * this.experts + expert] === mark) continue;
      const worth = this.#worth(layer, expert);
      if (victim >= 0 && (worth > least || (worth === least && expert < number))) continue;
      [victim, least, number] = [slot, worth, expert];
    }
    return victim;
  }

  #insert(layer: number, expert: number, slot: number): void {
    const at = layer * this.slots + slot;
    const before = this.#slotExpert[at] as number;
    if (before >= 0) {
      this.#expertSlot[layer * this.experts + before] = -1;
      this.#counters.evictions++;
    } else this.#filled[layer] = (this.#filled[layer] as number) + 1;
    this.#slotExpert[at] = expert;
    this.#expertSlot[layer * this.experts + expert] = slot;
  }

  /** Of what is there and what this event uses, the `slots` with the nearest next use stay; each missing one meets the worst resident. */
  #keepNearest(layer: number, experts: ArrayLike<number>): void {
    const missing: number[] = [];
    for (let i = 0; i < experts.length; i++) if (this.#loadOut[i]) missing.push(experts[i] as number);
    const better = (a: number, b: number): number => this.#worth(layer, b) - this.#worth(layer, a) || a - b;
    for (const expert of missing.sort(better)) {
      const filled = this.#filled[layer] as number;
      if (filled < this.slots) {
        this.#insert(layer, expert, filled);
        continue;
      }
      let worst = 0;
      const resident = (slot: number): number => this.#slotExpert[layer * this.slots + slot] as number;
      for (let slot = 1; slot < this.slots; slot++) if (better(resident(slot), resident(worst)) > 0) worst = slot;
      if (better(expert, resident(worst)) < 0) this.#insert(layer, expert, worst);
      else this.#counters.bypassed++;
    }
  }
}

function whole(name: string, value: number, max: number): void {
  if (!Number.isInteger(value) || value < 1 || value > max) refuse(`${name} from 1 to ${max}`, describe(value));
}

function refuse(expected: string, received: string): never {
  throw new HotsetError("argument", { where: "ExpertCache", expected, received });
}
