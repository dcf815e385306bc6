import { HazardSet } from "./hazard-set.js";
import { Lists } from "./lists.js";
import type { EvictionPolicy, PolicySetting, RequestContext } from "./policy.js";

const [shared, odd] = [0, 1];

/**
 * Class hazard: evicts the block that is least worth keeping by what was seen of blocks like it (HazardSet, HazardModel).
 *
 * Two caches are simulated beside each other, one that goes by hazard and an LRU cache. The real one follows LRU until
 * hazard has proved better on these references, and again when that is no longer so: it evicts what its leader does not
 * hold, oldest first, and so becomes equal to its leader. Without information it is LRU, eviction for eviction.
 */
export class Hazard implements EvictionPolicy {
  readonly #capacity: number;
  readonly #prefixHits: boolean;
  readonly #hazard: HazardSet;
  #hazardSize = 0;
  readonly #recent: Lists;
  /** The real cache: what the leader holds as well, and what it does not, each by last use. */
  readonly #real: Lists;
  #leads = false;
  #hazardHits = 0;
  #recentHits = 0;
  #references = 0;

  constructor({ capacity, unique, prefixHits = false }: PolicySetting) {
    this.#capacity = capacity;
    this.#prefixHits = prefixHits;
    this.#hazard = new HazardSet(unique);
    this.#recent = new Lists(unique, 1);
    this.#real = new Lists(unique, 2);
  }

  /** Whether hazard is followed now, and not LRU. */
  get leads(): boolean {
    return this.#leads;
  }

  begin({ blocks, from, to }: RequestContext): void {
    this.#hazard.begin();
    if (this.#references >= halvedEvery) {
      this.#references = 0;
      this.#hazardHits /= 2;
      this.#recentHits /= 2;
    }
    const lead = this.#hazardHits - this.#recentHits;
    if (this.#leads ? lead < 0 : lead > leastLead + this.#recentHits / 64) this.#follow(!this.#leads);
    if (!this.#prefixHits) return;
    for (let i = from; i < to && this.#recent.of(blocks[i] as number) >= 0; i++) this.#recentHits++;
    for (let i = from; i < to && this.#hazard.has(blocks[i] as number); i++) this.#hazardHits++;
  }

  end(request: RequestContext): void {
    this.#hazard.end(request);
  }

  touch(block: number, position: number): void {
    this.#simulate(block, position);
    this.#real.remove(block);
    this.#real.push(shared, block);
  }

  miss(block: number, position: number): void {
    this.#simulate(block, position);
  }

  victim(): number {
    const block = this.#real.oldest(odd);
    // A driver that evicts others than the ones named here may leave nothing odd.
    return block >= 0 ? block : this.#real.oldest(shared);
  }

  remove(block: number): void {
    this.#real.remove(block);
  }

  insert(block: number): void {
    this.#real.push(shared, block);
  }

  #simulate(block: number, position: number): void {
    this.#references++;
    if (this.#recent.of(block) >= 0) {
      if (!this.#prefixHits) this.#recentHits++;
      this.#recent.remove(block);
    } else if (this.#recent.size(0) === this.#capacity) this.#dropped(this.#recent.shift(0), !this.#leads);
    this.#recent.push(0, block);
    if (this.#hazard.has(block)) {
      if (!this.#prefixHits) this.#hazardHits++;
    } else if (this.#hazardSize === this.#capacity) {
      const least = this.#hazard.least();
      this.#hazard.remove(least);
      this.#dropped(least, this.#leads);
    } else this.#hazardSize++;
    this.#hazard.use(block, position);
  }

  #dropped(block: number, byLeader: boolean): void {
    if (!byLeader || this.#real.of(block) !== shared) return;
    this.#real.remove(block);
    this.#real.push(odd, block);
  }

  #follow(hazard: boolean): void {
    this.#leads = hazard;
    const order: number[] = [];
    for (const list of [odd, shared])
      for (let block = this.#real.oldest(list); block >= 0; block = this.#real.newer(block)) order.push(block);
    for (const block of order) {
      this.#real.remove(block);
      this.#real.push((hazard ? this.#hazard.has(block) : this.#recent.of(block) >= 0) ? shared : odd, block);
    }
  }
}

/** Hits that hazard must lead by, beside 1/64 of LRU's; references after which both counts are halved. */
const [leastLead, halvedEvery] = [64, 2 ** 20];
