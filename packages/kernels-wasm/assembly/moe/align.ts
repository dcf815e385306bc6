// moe/align: assignments in the order of their experts, each expert's filled up to whole blocks.
//
// A stable counting sort. Tasks of 4096 assignments count their experts and copy the ids, checked once; one task turns the
// counts into places, in the order of experts and tasks, and fills up the blocks; then each task puts its own in place. So the
// order does not depend on the threads.
import { MOE_ALIGN_PORT_IDS, MoeAlignParams } from "../gen/params";
import { fail, KernelPlan, Status } from "../lib/kernel";

const TASK_IDS: u32 = 4096;

function count_of(params: MoeAlignParams): u32 {
  return params.tokens * params.top_k;
}
function tasks_of(params: MoeAlignParams): u32 {
  return max<u32>(1, (count_of(params) + TASK_IDS - 1) / TASK_IDS);
}

/** Scratch: places [tasks][experts], counts and then where the next one goes; checked ids [count]. */
export function moe_align_plan(params: MoeAlignParams, slots: u32, out: KernelPlan): void {
  const tasks = tasks_of(params);
  out.kernel = 0;
  out.phases = 3;
  out.tasks0 = tasks;
  out.tasks1 = 1;
  out.tasks2 = tasks;
  out.scratch_bytes = 4 * (<f64>tasks * params.experts + <f64>params.tokens * params.top_k);
}

export function moe_align_task(params: MoeAlignParams, scratch: usize, phase: u32, task: u32, slot: u32, slots: u32, status: Status): void {
  const ids = scratch + <usize>tasks_of(params) * params.experts * 4;
  const first = task * TASK_IDS;
  const end = min(count_of(params), first + TASK_IDS);
  const places = scratch + <usize>task * params.experts * 4;
  if (phase == 0) count_experts(params, places, ids, first, end, status);
  else if (phase == 1) place_experts(params, scratch);
  else {
    for (let i = first; i < end; i++) {
      const id = load<i32>(ids + i * 4);
      if (id < 0) continue;
      const row = load<u32>(places + id * 4);
      store<u32>(places + id * 4, row + 1);
      store<u32>(params.sorted + row * 4, i);
    }
  }
}

function count_experts(params: MoeAlignParams, counts: usize, ids: usize, first: u32, end: u32, status: Status): void {
  memory.fill(counts, 0, params.experts * 4);
  for (let i = first; i < end; i++) {
    const id = load<i32>(params.ids + i * 4);
    const there = id >= 0 && <u32>id < params.experts;
    store<i32>(ids + i * 4, there ? id : -1);
    if (there) store<u32>(counts + id * 4, load<u32>(counts + id * 4) + 1);
    else if (id != -1) fail(status, MOE_ALIGN_PORT_IDS, i, id);
  }
}

function place_experts(params: MoeAlignParams, places: usize): void {
  const tasks = tasks_of(params);
  const size = params.block_size;
  const blocks = (params.capacity + size - 1) / size;
  let row: u32 = 0;
  for (let e: u32 = 0; e < params.experts; e++) {
    const first = row;
    for (let t: u32 = 0; t < tasks; t++) {
      const at = places + <usize>(t * params.experts + e) * 4;
      const n = load<u32>(at);
      store<u32>(at, row);
      row += n;
    }
    const end = first + ((row - first + size - 1) / size) * size;
    for (let block = first / size; block < end / size; block++) store<u32>(params.block_expert + block * 4, e);
    for (; row < end; row++) store<i32>(params.sorted + row * 4, -1);
  }
  store<u32>(params.total, row);
  for (let block = row / size; block < blocks; block++) store<i32>(params.block_expert + block * 4, -1);
  for (; row < params.capacity; row++) store<i32>(params.sorted + row * 4, -1);
}
