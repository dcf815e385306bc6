// The workers of one memory, and how they share a job with the thread that calls. Only in builds with threads.
//
// Tasks are claimed one by one from a counter, so a thread that is late or descheduled takes fewer; a job ends when
// its tasks are done, not when every worker has shown up. When the pool is at work for another thread, the job runs
// on the calling thread alone: nobody waits.
import { Job, run, run_job_task } from "./run";

// Words at fixed addresses, far apart, so that no two threads fight over a cache line. TypeScript knows BROKEN, UP
// and REQUEST: src/workers.ts.
/** High half: the job's number; low half: the next task. A late worker cannot take a task of the next job. */
const NEXT: usize = 1024;
const DONE: usize = 1088;
/** Not 0: the caller sleeps until the last task is done. */
const WAITING: usize = 1092;
const EPOCH: usize = 1152;
/** Workers that sleep until the epoch changes. */
const SLEEPING: usize = 1156;
const TASKS: usize = 1216;
const JOB: usize = 1220;
const PHASE: usize = 1224;
const BUSY: usize = 1280;
/** Workers that have started. */
const UP: usize = 1344;
/** Not 0: a worker met a trap or is being stopped, so that a task may never be done. */
const BROKEN: usize = 1348;
/** The job that the conductor is to run; 0 when there is none. */
const REQUEST: usize = 1408;

// About 10 us: bridges the gap between two steps of a decode loop, and is short beside a scheduler's slice.
const SPINS = 4000;

/** Runs the tasks of a phase together with the workers. False, with nothing done, when the pool is busy. */
export function share(job: Job, phase: u32, tasks: u32): bool {
  if (!ASC_FEATURE_THREADS) return false;
  if (broken() || atomic.cmpxchg<u32>(BUSY, 0, 1) != 0) return false;
  const number = <u32>(atomic.load<u64>(NEXT) >> 32) + 1;
  // Order matters. Who sees the new counter sees no tasks, or the new tasks with all that was stored before them;
  // who still holds the old counter fails to claim, because it has moved.
  atomic.store<u32>(TASKS, 0);
  atomic.store<u64>(NEXT, (<u64>number) << 32);
  atomic.store<u32>(DONE, 0);
  atomic.store<usize>(JOB, changetype<usize>(job));
  atomic.store<u32>(PHASE, phase);
  atomic.store<u32>(TASKS, tasks);
  atomic.store<u32>(EPOCH, number);
  // A worker counts itself before it compares the epoch: it sees the new one, or is seen here.
  if (atomic.load<u32>(SLEEPING) != 0) atomic.notify(EPOCH, -1);
  take(0);
  for (let spin = 0; ; spin++) {
    const done = atomic.load<u32>(DONE);
    if (done == tasks || broken()) break;
    if (spin < SPINS) continue;
    atomic.store<u32>(WAITING, 1);
    if (atomic.load<u32>(DONE) == done && !broken()) atomic.wait<u32>(DONE, done, -1);
    atomic.store<u32>(WAITING, 0);
  }
  atomic.store<u32>(BUSY, 0);
  return true;
}

/** A worker met a trap, or all are being stopped: the job at hand is lost, and later ones run without the pool. */
export function broken(): bool {
  if (!ASC_FEATURE_THREADS) return false;
  return atomic.load<u32>(BROKEN) != 0;
}

/** A worker's life, at its slot. */
export function pool_work(slot: u32): void {
  if (!ASC_FEATURE_THREADS) return;
  atomic.add<u32>(UP, 1);
  atomic.notify(UP, -1);
  for (let seen: u32 = 0; ; ) {
    let epoch = atomic.load<u32>(EPOCH);
    for (let spin = 0; epoch == seen && spin < SPINS; spin++) epoch = atomic.load<u32>(EPOCH);
    if (epoch == seen) {
      atomic.add<u32>(SLEEPING, 1);
      if (atomic.load<u32>(EPOCH) == seen) atomic.wait<u32>(EPOCH, seen, -1);
      atomic.sub<u32>(SLEEPING, 1);
      continue;
    }
    seen = epoch;
    take(slot);
  }
}

/** Waits for a request, runs it as its caller, at slot 0; returns the first fault's address, or 0. */
export function pool_conduct(): usize {
  if (!ASC_FEATURE_THREADS) return 0;
  for (;;) {
    const job = atomic.load<usize>(REQUEST);
    if (job == 0) {
      atomic.wait<u32>(REQUEST, 0, -1);
      continue;
    }
    const fault = run(changetype<Job>(job), true);
    atomic.store<usize>(REQUEST, 0);
    return fault;
  }
}

/** Takes tasks of the job at hand until there are none. */
function take(slot: u32): void {
  for (let next = atomic.load<u64>(NEXT); ; ) {
    const tasks = atomic.load<u32>(TASKS);
    const job = changetype<Job>(atomic.load<usize>(JOB));
    const phase = atomic.load<u32>(PHASE);
    if (<u32>next >= tasks) {
      // The counter may have moved to a new job since it was read.
      const again = atomic.load<u64>(NEXT);
      if (again == next) return;
      next = again;
      continue;
    }
    const claimed = atomic.cmpxchg<u64>(NEXT, next, next + 1);
    if (claimed != next) {
      next = claimed;
      continue;
    }
    run_job_task(job, phase, <u32>next, slot);
    if (atomic.add<u32>(DONE, 1) + 1 == tasks && atomic.load<u32>(WAITING) != 0) atomic.notify(DONE, -1);
    next = atomic.load<u64>(NEXT);
  }
}
