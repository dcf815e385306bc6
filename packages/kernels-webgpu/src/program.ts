/** What an op's host side says to the backend: which passes there are, what they need, and how a run is dispatched. */
import type { AnyAxes, KernelRequest } from "@hotset/core/backend";

/** What the device allows and offers, as far as kernels care. */
export interface DeviceFacts {
  readonly features: ReadonlySet<string>;
  readonly maxStorageBufferBindingSize: number;
  readonly maxBufferSize: number;
  readonly maxComputeWorkgroupStorageSize: number;
  readonly maxComputeWorkgroupsPerDimension: number;
  readonly tunables: Tunables;
}

/** What kernels size their tiles by. */
export interface Tunables {
  /** Invocations of a workgroup; a power of two. */
  readonly threads: number;
  /** Queries that share a pass over rows, at most; a power of two up to 8. */
  readonly queries: number;
  /** Columns that are staged at once, at most: 32, 16 or 8. */
  readonly columns: number;
  /** Results that lists have room for, at least: k is rounded up to a power of two, so that few pipelines serve every k. */
  readonly results: number;
  /** Bytes of one binding, at most; the device's limit may be lower. */
  readonly bindingBytes: number;
}

/** A compute pipeline: the entry point of a composed module, specialised by the values of its override constants. */
export interface Pass {
  readonly pieces: readonly string[];
  readonly flags: readonly string[];
  readonly entry: string;
  readonly constants: Readonly<Record<string, number>>;
  /** Binding number of each buffer: a tensor port, a scratch buffer, or `uniforms`. */
  readonly bindings: Readonly<Record<string, number>>;
}

/** A part of a buffer, from a multiple of 256 bytes on. */
export interface Range {
  readonly offset: number;
  readonly bytes: number;
}

export interface Launch {
  readonly pass: string;
  readonly workgroups: readonly [number, number];
  /** 32-bit words behind the op's own parameters. */
  readonly words: readonly number[];
  /** Buffers that this launch sees only a part of; and which scratch buffer stands for a name of the pass. */
  readonly ranges?: Readonly<Record<string, Range>>;
  readonly scratch?: Readonly<Record<string, string>>;
}

/** Where kernels note bad indices: word i of the head (`faultBytes`) of a scratch buffer is ports[i]'s, see faults.ts. */
export interface FaultPorts {
  readonly scratch: string;
  /** In the order in which the reference reports them. */
  readonly ports: readonly string[];
}

/** A kernel for one plan. */
export interface Program {
  readonly name: string;
  readonly passes: Readonly<Record<string, Pass>>;
  readonly faults?: FaultPorts;
  /** Fits it to the row pitches of a step. Throws HotsetError where they cannot be bound. */
  arrange(pitch: Readonly<Record<string, number>>): Arrangement;
}

export interface Arrangement {
  /** Bytes of each scratch buffer, at the plan's axes. */
  readonly scratch: Readonly<Record<string, number>>;
  /** The launches of a run of these sizes and scalars, in order; none of them needs more scratch than the plan's. */
  launches(actual: AnyAxes, scalars: Readonly<Record<string, number>>): readonly Launch[];
}

/** The row of an op: its program on a device, or why there is none. */
export type ProgramOf = (request: KernelRequest, facts: DeviceFacts) => Program | string;
