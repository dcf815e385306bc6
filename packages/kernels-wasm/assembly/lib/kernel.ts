// What a kernel is: a fixed list of phases, each a number of independent tasks. `plan` is a pure function of the
// parameters; tasks of a phase may run in any order and on any thread; phases run one after the other.
// Addresses are unsigned 32-bit. Nothing here allocates: objects are views of memory that TypeScript laid out.

export const MAX_PHASES: u32 = 4;

/** What a plan writes. The kernel may use PLAN_ROOM bytes behind it for its own arithmetic. */
@unmanaged
export class KernelPlan {
  /** Which of the op's kernels this shape gets: position in its row of src/kernels.ts. */
  kernel: u32;
  phases: u32;
  tasks0: u32;
  tasks1: u32;
  tasks2: u32;
  tasks3: u32;
  /** Bytes of 64-byte aligned scratch, enough for all smaller live sizes too. May exceed what 32 bits address. */
  scratch_bytes: f64;
}

export const PLAN_ROOM: u32 = 512;

export const STATUS_INDEX: u32 = 1;
export const STATUS_INTERNAL: u32 = 3;

/** The first fault of one thread slot. */
@unmanaged
export class Status {
  code: u32;
  port: u32;
  index: f64;
  value: f64;
}

export function fail(status: Status, port: i32, index: u32, value: f64): void {
  if (status.code != 0) return;
  status.code = STATUS_INDEX;
  status.port = port;
  status.index = index;
  status.value = value;
}

/** Bytes in whole 64-byte lines. */
export function align_line(bytes: u64): u64 {
  return (bytes + 63) & ~63;
}

/** The end of an object laid out in memory, on the next 64-byte line. */
export function line_after(address: usize, bytes: usize): usize {
  return (address + bytes + 63) & ~63;
}
