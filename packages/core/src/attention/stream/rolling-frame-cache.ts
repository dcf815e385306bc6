import { describe, HotsetError } from "../../errors.js";

export interface RollingFrameSettings {
  /** Frames that the cache holds. */
  readonly frames: number;
  /** The first so many stay: the sinks. At most frames - 1; default 3, or fewer where the cache is small. */
  readonly sinks?: number;
  /** Passes over a frame before the next one comes; each writes the frame's keys and values anew. Default 1. */
  readonly denoisingSteps?: number;
  /** A frame less similar than this to some sink takes the place of the least similar one; default 0.2, `null` for never. */
  readonly refreshBelow?: number | null;
  /** Positions start again from frames - 1 when they reach this, which is the range the model was trained on; default 50, `null` for never. */
  readonly resetAfter?: number | null;
}

/** What a pass does to the cache. */
export interface FramePass {
  /** The frame, counted from 0, and which of its passes this is. */
  readonly frame: number;
  readonly pass: number;
  /** The last pass of the frame: afterwards its slot has its place in the order. */
  readonly last: boolean;
  /** Where the keys and values of the frame go. */
  readonly slot: number;
  /** The frame that this overwrites for good, undefined where the slot was free or holds this frame already. */
  readonly evicted: number | undefined;
  /** `fill`: the slot was free. `roll`: the oldest frame that is no sink leaves. `refresh`: a sink does. */
  readonly kind: "fill" | "roll" | "refresh";
  /** The frame's position for its rotation, in frames. */
  readonly position: number;
  /** Slots 0 up to this hold frames, this one included: all of them are attended to, in any order. */
  readonly held: number;
}

export interface FrameSlot {
  readonly state: "free" | "sink" | "rolling";
  /** -1 in a free slot. */
  readonly frame: number;
  readonly position: number;
}

/**
 * Which slots a streaming video model's frames go to: a few first frames stay as sinks, the others roll, in place. It decides and
 * holds no memory: the caller writes keys and values where a pass says, and attends to the slots that are held.
 *
 * Slots fill in order; then each new frame takes the slot of the oldest one that is no sink, and that slot goes to the end of the order
 * once all denoising passes of the frame are done. A frame that has little in common with some sink (a cut) takes the place of the
 * least similar sink instead, and is a sink from then on. Positions count frames; when they reach the end of the trained range they
 * start again at frames - 1. Keys keep the rotation they were written with, so until the cache has rolled once, some cached frames
 * have larger positions than the new one.
 *
 * After the sink-guided rolling cache of StreamDiffusionV2 (arXiv 2511.07399). Decided here: similarities are asked for once
 * a frame, at its first pass and with a full cache, so that a frame takes one slot; passes of a frame that fills share its slot.
 * Every call either happens or throws and changes nothing.
 */
export class RollingFrameCache {
  readonly frames: number;
  readonly sinks: number;
  readonly denoisingSteps: number;
  readonly refreshBelow: number | null;
  readonly resetAfter: number | null;
  /** Of each slot: the frame it holds, -1 for none, and the position it was rotated to. */
  readonly #frame: Int32Array;
  readonly #position: Int32Array;
  /** Slots that roll, the next to be overwritten first. */
  readonly #order: number[] = [];
  #held = 0;
  #nextFrame = 0;
  #nextPosition = 0;
  #refreshes = 0;
  /** The pass before, unless it was its frame's last. */
  #current: FramePass | undefined;

  /** Throws HotsetError `argument` for settings that no cache can have. */
  constructor({ frames, sinks, denoisingSteps = 1, refreshBelow = 0.2, resetAfter = 50 }: RollingFrameSettings) {
    whole("frames", frames, 1, 2 ** 24);
    this.frames = frames;
    this.sinks = sinks ?? Math.min(3, frames - 1);
    whole("sinks", this.sinks, 0, frames - 1);
    whole("denoisingSteps", denoisingSteps, 1, 2 ** 20);
    this.denoisingSteps = denoisingSteps;
    if (refreshBelow !== null && !(refreshBelow >= -1 && refreshBelow <= 1)) refuse("a refreshBelow from -1 to 1, or null", refreshBelow);
    this.refreshBelow = refreshBelow;
    if (resetAfter !== null) whole("resetAfter", resetAfter, frames, 2 ** 30);
    this.resetAfter = resetAfter;
    this.#frame = new Int32Array(frames).fill(-1);
    this.#position = new Int32Array(frames).fill(-1);
  }

  /** Whether the next pass wants to know how similar its frame is to each sink. */
  get asksSimilarity(): boolean {
    return this.refreshBelow !== null && this.sinks > 0 && this.#held === this.frames && this.#current === undefined;
  }

  /** Sinks that new frames took the place of. */
  get refreshes(): number {
    return this.#refreshes;
  }

  slots(): FrameSlot[] {
    return Array.from({ length: this.frames }, (_, slot) => ({
      state: slot >= this.#held ? "free" : slot < this.sinks ? "sink" : "rolling",
      frame: this.#frame[slot] as number,
      position: this.#position[slot] as number,
    }));
  }

  /** The slots that roll, the next to be overwritten first. */
  order(): readonly number[] {
    return [...this.#order];
  }

  /**
   * The next pass: of the frame at hand, or of a new one. `similarity` [sinks], from -1 to 1, where `asksSimilarity`: of
   * the new frame to each sink, as `frameSimilarity` gives it. Throws where it is asked for and missing, or not asked for.
   */
  pass(similarity?: readonly number[]): FramePass {
    if (this.asksSimilarity) this.#check(similarity);
    else if (similarity !== undefined) refuse("no similarities: this pass does not ask for them", similarity);
    const next = this.#current ? again(this.#current, this.denoisingSteps) : this.#begin(similarity);
    if (!this.#current) {
      if (next.kind === "fill") this.#held = next.held;
      if (next.kind === "fill" && next.slot >= this.sinks) this.#order.push(next.slot);
      if (next.kind === "refresh") this.#refreshes++;
      this.#frame[next.slot] = next.frame;
      this.#position[next.slot] = next.position;
      this.#nextFrame = next.frame + 1;
      this.#nextPosition = next.position + 1;
    }
    if (next.last && next.kind === "roll") this.#order.push(this.#order.shift() as number);
    this.#current = next.last ? undefined : next;
    return next;
  }

  #begin(similarity: readonly number[] | undefined): FramePass {
    const full = this.#held === this.frames;
    const least = similarity ? similarity.indexOf(Math.min(...similarity)) : -1;
    const refresh = least >= 0 && (similarity?.[least] as number) < (this.refreshBelow as number);
    const slot = !full ? this.#held : refresh ? least : (this.#order[0] as number);
    return {
      frame: this.#nextFrame,
      pass: 0,
      last: this.denoisingSteps === 1,
      slot,
      evicted: full ? this.#frame[slot] : undefined,
      kind: !full ? "fill" : refresh ? "refresh" : "roll",
      position: this.resetAfter !== null && this.#nextPosition >= this.resetAfter ? this.frames - 1 : this.#nextPosition,
      held: full ? this.#held : this.#held + 1,
    };
  }

  #check(similarity: readonly number[] | undefined): void {
    if (similarity?.length !== this.sinks) refuse(`the similarity of the frame to each of ${this.sinks} sinks`, similarity);
    // Cosines may pass 1 by their roundings.
    for (const one of similarity as readonly number[]) if (!(Math.abs(one) <= 1.001)) refuse("similarities from -1 to 1", one);
  }

  /** Throws HotsetError `internal` where something that must always hold does not. */
  audit(): void {
    const holds = (held: boolean, what: string): void => {
      if (!held)
        throw new HotsetError("internal", { where: "RollingFrameCache.audit", expected: what, received: JSON.stringify(this.slots()) });
    };
    const slots = this.slots();
    const rolling = slots.flatMap(({ state }, slot) => (state === "rolling" ? [slot] : []));
    holds(
      [...this.#order].sort((a, b) => a - b).every((slot, i) => slot === rolling[i]) && this.#order.length === rolling.length,
      "each rolling slot once in the order, and no other",
    );
    holds(
      slots.every(({ state, frame, position }) => (state === "free") === (frame === -1) && (frame === -1) === (position === -1)),
      "a frame and a position in every slot that is not free",
    );
    const held = slots.flatMap(({ frame }) => (frame >= 0 ? [frame] : []));
    holds(
      new Set(held).size === held.length && held.every((frame) => frame < this.#nextFrame),
      "no frame twice, and none that has not come",
    );
    const newest = this.#current?.kind === "roll" ? this.#current.slot : -1;
    const ages = [...this.#order.filter((slot) => slot !== newest), ...(newest < 0 ? [] : [newest])].map(
      (slot) => this.#frame[slot] as number,
    );
    holds(
      ages.every((frame, i) => i === 0 || frame > (ages[i - 1] as number)),
      "the order to be that of the frames",
    );
    holds(newest < 0 || this.#order[0] === newest, "the frame at hand to be next in the order until its last pass");
    const moved = slots.slice(0, Math.min(this.sinks, this.#held)).filter(({ frame }, slot) => frame !== slot).length;
    holds(moved <= this.#refreshes, "sinks to be the first frames, but for those that were refreshed");
    holds(
      this.resetAfter === null || slots.every(({ position }) => position < (this.resetAfter as number)),
      "positions in the trained range",
    );
  }
}

const again = (before: FramePass, passes: number): FramePass => ({
  ...before,
  pass: before.pass + 1,
  last: before.pass + 2 === passes,
  evicted: undefined,
});

/** (cosine of the mean keys + cosine of the mean values) / 2, of a frame and a sink; what has no direction is like nothing: 0. */
export function frameSimilarity(a: FrameMeans, b: FrameMeans): number {
  return (cosine(a.key, b.key) + cosine(a.value, b.value)) / 2;
}

/** The means over a frame's tokens, all heads side by side. */
export interface FrameMeans {
  readonly key: Float32Array;
  readonly value: Float32Array;
}

/** Of `keys` and `values` [heads, tokens, dim], the layout of a page: the means over the tokens [heads, dim]. */
export function frameMeans(keys: Float32Array, values: Float32Array, heads: number, tokens: number): FrameMeans {
  const mean = (rows: Float32Array): Float32Array => {
    const dim = rows.length / heads / tokens;
    if (!Number.isInteger(dim) || dim === 0) refuse(`rows [${heads} heads, ${tokens} tokens, dim]`, `${rows.length} numbers`);
    const sums = new Float64Array(heads * dim);
    for (let at = 0; at < rows.length; at++) {
      const to = Math.floor(at / (tokens * dim)) * dim + (at % dim);
      sums[to] = (sums[to] as number) + (rows[at] as number) / tokens;
    }
    return Float32Array.from(sums);
  };
  return { key: mean(keys), value: mean(values) };
}

function cosine(a: Float32Array, b: Float32Array): number {
  if (a.length !== b.length) refuse(`means of one length`, `${a.length} and ${b.length} numbers`);
  let [dot, first, second] = [0, 0, 0];
  for (const [i, x] of a.entries()) {
    dot += x * (b[i] as number);
    first += x * x;
    second += (b[i] as number) ** 2;
  }
  return first === 0 || second === 0 ? 0 : dot / Math.sqrt(first * second);
}

function whole(name: string, value: number, min: number, max: number): void {
  if (!Number.isInteger(value) || value < min || value > max) refuse(`${name}: a whole number from ${min} to ${max}`, value);
}

function refuse(expected: string, received: unknown): never {
  throw new HotsetError("argument", { where: "RollingFrameCache", expected, received: describe(received) });
}
