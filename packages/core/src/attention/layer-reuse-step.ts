/** One layer of LayerReuse with its arrays, and what is counted of its runs. */
import type { Step } from "../step.js";
import type { decode } from "./decode/spec.js";

/** What was done since the beginning. Tokens are counted once for each layer and KV head that met them. */
export interface ReuseCounters {
  readonly steps: number;
  /** Runs of a layer that attended to everything, those of anchors that made a list, and those that attended to a list. */
  readonly denseRuns: number;
  readonly anchorRuns: number;
  readonly sparseRuns: number;
  readonly tokensAttended: number;
  /** What dense attention would have met. */
  readonly tokensVisible: number;
  /** Share of the attention mass that lay in the lists when they were made, mean over them; NaN without any, and of resident layers. */
  readonly massKept: number;
  /** Whether the last step attended to a list in some layer. */
  readonly sparseActive: boolean;
}

/** A layer with its arrays. */
export interface LayerStep {
  /** out [batch, queryHeads, valueDim] and lse [batch, queryHeads], the same arrays at every run. */
  readonly outputs: Step<typeof decode>["outputs"];
  /** One step of this layer over the lengths that its array holds now. Throws HotsetError. */
  run(): Step<typeof decode>["outputs"];
  /** The same on any backend, off this thread where the backend can. */
  runAsync(): Promise<Step<typeof decode>["outputs"]>;
  dispose(): void;
}

export interface Runnable {
  run(): unknown;
  /** Missing where all tensors lie on a device: `run` queues. */
  runAsync?(): Promise<unknown>;
}
/** What one run of a layer takes, and what is counted when it is done. */
export interface Work {
  readonly runs: readonly Runnable[];
  done(): void;
}

export class BoundLayer implements LayerStep {
  readonly outputs: LayerStep["outputs"];
  readonly #begin: () => Work;
  readonly #made: readonly { dispose(): void }[];

  constructor(begin: () => Work, outputs: LayerStep["outputs"], made: readonly { dispose(): void }[]) {
    this.#begin = begin;
    this.outputs = outputs;
    this.#made = made;
  }

  run(): LayerStep["outputs"] {
    const { runs, done } = this.#begin();
    for (const step of runs) step.run();
    done();
    return this.outputs;
  }

  async runAsync(): Promise<LayerStep["outputs"]> {
    const { runs, done } = this.#begin();
    for (const step of runs) await (step.runAsync ? step.runAsync() : step.run());
    done();
    return this.outputs;
  }

  dispose(): void {
    for (const step of this.#made) step.dispose();
  }
}
