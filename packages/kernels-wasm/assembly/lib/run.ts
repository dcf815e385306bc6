// Running a job: a kernel with its parameters and scratch. TypeScript lays it out and calls `run`.
import { plan_kernel, run_task } from "../index";
import { KernelPlan, MAX_PHASES, STATUS_INTERNAL, Status } from "./kernel";
import { broken, share } from "./pool";

/** As src/job.ts lays it out; a KernelPlan with its room follows. */
@unmanaged
export class Job {
  /** Number of the op in this build. */
  op: u32;
  params: usize;
  scratch: usize;
  scratch_bytes: u32;
  slots: u32;
  /** [slots] */
  statuses: usize;
  /** Not 0: a size or scalar has changed since the plan was made. */
  stale: u32;
  padding: u32;

  plan(): KernelPlan {
    return changetype<KernelPlan>(changetype<usize>(this) + offsetof<Job>());
  }
  status(slot: u32): Status {
    return changetype<Status>(this.statuses + slot * offsetof<Status>());
  }
}

/** Runs all phases; `together` with the pool's workers, if they are free. Returns the first fault's address, or 0. */
export function run(job: Job, together: bool): usize {
  const plan = job.plan();
  const slots = job.slots;
  for (let slot: u32 = 0; slot < slots; slot++) job.status(slot).code = 0;
  if (job.stale) {
    plan_kernel(job.op, job.params, slots, plan);
    job.stale = 0;
  }
  if (plan.scratch_bytes > <f64>job.scratch_bytes || plan.phases > MAX_PHASES) return internal_fault(job);
  for (let phase: u32 = 0; phase < plan.phases; phase++) {
    const tasks = load<u32>(changetype<usize>(plan) + phase * 4, offsetof<KernelPlan>("tasks0"));
    if (ASC_FEATURE_THREADS) {
      if (together && tasks > 1 && slots > 1 && share(job, phase, tasks)) {
        if (broken()) return internal_fault(job);
        continue;
      }
    }
    for (let task: u32 = 0; task < tasks; task++) run_job_task(job, phase, task, 0);
  }
  return first_fault(job);
}

export function run_job_task(job: Job, phase: u32, task: u32, slot: u32): void {
  run_task(job.op, job.params, job.scratch, phase, task, slot, job.slots, job.status(slot));
}

function internal_fault(job: Job): usize {
  const status = job.status(0);
  status.code = STATUS_INTERNAL;
  status.port = 0;
  status.index = 0;
  status.value = STATUS_INTERNAL;
  return changetype<usize>(status);
}

/** The one at the lowest port and index. */
function first_fault(job: Job): usize {
  let first: usize = 0;
  for (let slot: u32 = 0; slot < job.slots; slot++) {
    const status = job.status(slot);
    if (status.code == 0) continue;
    const best = changetype<Status>(first);
    if (first == 0 || status.port < best.port || (status.port == best.port && status.index < best.index)) first = changetype<usize>(status);
  }
  return first;
}
