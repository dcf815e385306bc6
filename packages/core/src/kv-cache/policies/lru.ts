import { Fifo } from "./fifo.js";

/** Least recently used: evicts the block whose last use is longest ago. */
export class Lru extends Fifo {
  override touch(block: number): void {
    this.remove(block);
    this.insert(block);
  }
}
