/** What a peer of search/scan is to the bench. */
export interface ScanJob {
  readonly batch: number;
  readonly count: number;
  readonly dim: number;
  readonly k: number;
  readonly metric: "cos" | "ip" | "l2";
  readonly queries: Float32Array;
  readonly rows: Float32Array | Int8Array;
}

export interface ScanResult {
  readonly ids: Int32Array;
  readonly scores: Float32Array;
}

export interface ScanPeer {
  readonly name: string;
  readonly version: string;
  /** Threads and options, printed beside each result. */
  readonly settings: string;
  supports(job: ScanJob): true | string;
  /** Ways to run the job; the fastest is timed. */
  ways(job: ScanJob): (() => ScanResult)[];
}
