// moe/grouped-ffn: out[i] = W_down (silu(W_gate x) * (W_up x)) for the rows of each expert.
//
// One task checks the indices and gathers rows of one expert in groups of up to 64; then tasks of 32 rows of weights meet
// every group: gate and up together, then down. Up to 4 rows of numbers meet the weights where they lie, each weight read
// once; more share one widening to f32 of a tile by 512 numbers. Sums: expert-rows.ts. Few rows are bound by the bandwidth of
// the weights, many by multiply-add.
import {
  DTYPE_F16,
  DTYPE_F32,
  MOE_GROUPED_FFN_PORT_BLOCK_EXPERT,
  MOE_GROUPED_FFN_PORT_EXPERT_SLOT,
  MOE_GROUPED_FFN_PORT_SORTED,
  MoeGroupedFfnParams,
} from "../gen/params";
import { math } from "../lib/exp";
import { align_line, fail, KernelPlan, line_after, Status } from "../lib/kernel";
import { GROUP_ROWS, products, RUN_UNITS, TILE_ROWS, UNIT, WeightTile, weight_row_bytes } from "./expert-rows";

const TASK_FLOATS: u32 = 64 << 10;
const CONTEXT_BYTES: u64 = 256;
const SEEN: u8 = 1;
const COMPUTED: u8 = 2;

@unmanaged
class Ffn {
  params: MoeGroupedFfnParams;
  scratch: usize;
  slot: u32;
  assignments: u32;
  blocks: u32;
  dim_pitch: u32;
  hidden_pitch: u32;
  pack_tokens: u32;
  /** Tokens are copied to whole units. */
  packed: bool;
  groups_at: u64;
  sorted_at: u64;
  experts_at: u64;
  slots_at: u64;
  rows_at: u64;
  marks_at: u64;
  x_at: u64;
  inside_at: u64;
  own_at: u64;
  own_bytes: u64;
  bytes: u64;

  cut(params: MoeGroupedFfnParams, slots: u32): void {
    this.params = params;
    const assignments = params.tokens * params.top_k;
    this.assignments = assignments;
    this.blocks = (params.capacity + params.block_size - 1) / params.block_size;
    this.dim_pitch = (params.dim + UNIT - 1) & ~(UNIT - 1);
    this.hidden_pitch = (params.hidden + TILE_ROWS - 1) & ~(TILE_ROWS - 1);
    this.packed = (params.dim & (UNIT - 1)) != 0;
    this.pack_tokens = <u32>max<u64>(1, TASK_FLOATS / (<u64>params.dim * (params.top_k + 1)));
    // Of a group: slot, first row, rows; the number of groups before them.
    this.groups_at = <u64>slots * CONTEXT_BYTES;
    this.sorted_at = align_line(this.groups_at + 64 + 12 * <u64>assignments);
    this.experts_at = align_line(this.sorted_at + 4 * <u64>params.capacity);
    this.slots_at = align_line(this.experts_at + 4 * <u64>this.blocks);
    this.rows_at = align_line(this.slots_at + 4 * <u64>params.experts);
    this.marks_at = align_line(this.rows_at + 4 * <u64>assignments);
    this.x_at = align_line(this.marks_at + assignments);
    this.inside_at = align_line(this.x_at + (this.packed ? 4 * <u64>params.tokens * this.dim_pitch : 0));
    this.own_at = align_line(this.inside_at + 4 * <u64>assignments * this.hidden_pitch);
    // Sums of gate and up, a widened tile, addresses of a group's rows, two tiles.
    this.own_bytes = align_line(4 * <u64>(2 * GROUP_ROWS * TILE_ROWS + TILE_ROWS * RUN_UNITS * UNIT + GROUP_ROWS) + 64);
    this.bytes = this.own_at + <u64>slots * this.own_bytes;
  }

  group(i: u32): usize {
    return this.scratch + <usize>this.groups_at + 64 + i * 12;
  }
  sorted(): usize {
    return this.scratch + <usize>this.sorted_at;
  }
  expert_of(): usize {
    return this.scratch + <usize>this.experts_at;
  }
  slot_of(): usize {
    return this.scratch + <usize>this.slots_at;
  }
  rows(): usize {
    return this.scratch + <usize>this.rows_at;
  }
  marks(): usize {
    return this.scratch + <usize>this.marks_at;
  }
  inside(row: u32): usize {
    return this.scratch + <usize>this.inside_at + row * (<usize>this.hidden_pitch * 4);
  }
  token(t: u32): usize {
    if (!this.packed) return this.params.x + t * (<usize>this.params.dim * 4);
    return this.scratch + <usize>this.x_at + t * (<usize>this.dim_pitch * 4);
  }
  sums(): usize {
    return this.scratch + <usize>this.own_at + this.slot * <usize>this.own_bytes;
  }
  up_sums(): usize {
    return this.sums() + GROUP_ROWS * TILE_ROWS * 4;
  }
  wide(): usize {
    return this.sums() + 2 * GROUP_ROWS * TILE_ROWS * 4;
  }
  addresses(): usize {
    return this.wide() + TILE_ROWS * RUN_UNITS * UNIT * 4;
  }
  tile(): usize {
    return this.addresses() + GROUP_ROWS * 4;
  }
}

export function moe_grouped_ffn_plan(params: MoeGroupedFfnParams, slots: u32, out: KernelPlan): void {
  const ffn = changetype<Ffn>(line_after(changetype<usize>(out), offsetof<KernelPlan>()));
  ffn.cut(params, slots);
  out.kernel = 0;
  out.phases = 4;
  out.tasks0 = 1;
  out.tasks1 = (params.tokens + ffn.pack_tokens - 1) / ffn.pack_tokens;
  out.tasks2 = ffn.assignments > 0 ? ffn.hidden_pitch / TILE_ROWS : 0;
  out.tasks3 = ffn.assignments > 0 ? (params.dim + TILE_ROWS - 1) / TILE_ROWS : 0;
  out.scratch_bytes = <f64>ffn.bytes;
}

export function moe_grouped_ffn_task(
  params: MoeGroupedFfnParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const ffn = changetype<Ffn>(scratch + slot * <usize>CONTEXT_BYTES);
  ffn.cut(params, slots);
  ffn.scratch = scratch;
  ffn.slot = slot;
  const dtype = params.gate_dtype;
  if (phase == 0) check(ffn, status);
  else if (phase == 1) prepare(ffn, task);
  else if (dtype == DTYPE_F32) run_phase<f32>(ffn, phase, task);
  else if (dtype == DTYPE_F16) run_phase<u16>(ffn, phase, task);
  else run_phase<i8>(ffn, phase, task);
}

function run_phase<T>(ffn: Ffn, phase: u32, task: u32): void {
  if (phase == 2) up<T>(ffn, task);
  else down<T>(ffn, task);
}

/** Indices as they are used from here on; -1 for what is not there. */
function check(ffn: Ffn, status: Status): void {
  const params = ffn.params;
  const sorted = ffn.sorted();
  const marks = ffn.marks();
  memory.fill(marks, 0, ffn.assignments);
  for (let i: u32 = 0; i < params.capacity; i++) {
    let value = checked(params.sorted, i, ffn.assignments, MOE_GROUPED_FFN_PORT_SORTED, status);
    if (value >= 0) {
      if (load<u8>(marks + value) != 0) {
        fail(status, MOE_GROUPED_FFN_PORT_SORTED, i, value);
        value = -1;
      } else store<u8>(marks + value, SEEN);
    }
    store<i32>(sorted + i * 4, value);
  }
  for (let i: u32 = 0; i < ffn.blocks; i++)
    store<i32>(ffn.expert_of() + i * 4, checked(params.block_expert, i, params.experts, MOE_GROUPED_FFN_PORT_BLOCK_EXPERT, status));
  for (let i: u32 = 0; i < params.experts; i++)
    store<i32>(ffn.slot_of() + i * 4, checked(params.expert_slot, i, params.slots, MOE_GROUPED_FFN_PORT_EXPERT_SLOT, status));
  gather(ffn);
}

function checked(values: usize, i: u32, below: u32, port: i32, status: Status): i32 {
  const value = load<i32>(values + i * 4);
  if (value >= 0 && <u32>value < below) return value;
  if (value != -1) fail(status, port, i, value);
  return -1;
}

function gather(ffn: Ffn): void {
  const params = ffn.params;
  const sorted = ffn.sorted();
  let count: u32 = 0;
  let row: u32 = 0;
  for (let block: u32 = 0; block < ffn.blocks; block++) {
    const expert = load<i32>(ffn.expert_of() + block * 4);
    const slot = expert < 0 ? -1 : load<i32>(ffn.slot_of() + expert * 4);
    if (slot < 0) continue;
    const end = min(params.capacity, (block + 1) * params.block_size);
    for (let i = block * params.block_size; i < end; i++) {
      const assignment = load<i32>(sorted + i * 4);
      if (assignment < 0) continue;
      if (count == 0 || load<i32>(ffn.group(count - 1)) != slot || load<u32>(ffn.group(count - 1), 8) == GROUP_ROWS) {
        store<i32>(ffn.group(count), slot);
        store<u32>(ffn.group(count), row, 4);
        store<u32>(ffn.group(count), 0, 8);
        count++;
      }
      const rows = load<u32>(ffn.group(count - 1), 8);
      store<u32>(ffn.group(count - 1), rows + 1, 8);
      store<u8>(ffn.marks() + assignment, COMPUTED);
      store<i32>(ffn.rows() + row * 4, assignment);
      row++;
    }
  }
  store<u32>(ffn.group(0) - 64, count);
}

/** Tokens in whole units; zeros for assignments that nothing computes. */
function prepare(ffn: Ffn, task: u32): void {
  const params = ffn.params;
  const k = params.top_k;
  const bytes: usize = params.dim * 4;
  const end = min(params.tokens, (task + 1) * ffn.pack_tokens);
  for (let t = task * ffn.pack_tokens; t < end; t++) {
    if (ffn.packed) {
      memory.copy(ffn.token(t), params.x + t * bytes, bytes);
      memory.fill(ffn.token(t) + bytes, 0, <usize>ffn.dim_pitch * 4 - bytes);
    }
    for (let i = t * k; i < (t + 1) * k; i++) if (load<u8>(ffn.marks() + i) != COMPUTED) memory.fill(params.out + i * bytes, 0, bytes);
  }
}

function tile_of<T>(ffn: Ffn, weights: usize, slot: u32, rows_of: u32, width: u32, task: u32): WeightTile {
  const tile = changetype<WeightTile>(ffn.tile());
  const first = task * TILE_ROWS;
  tile.row_bytes = weight_row_bytes<T>(width);
  tile.rows = weights + (slot * rows_of + first) * tile.row_bytes;
  tile.n = min(TILE_ROWS, rows_of - first);
  tile.width = width;
  return tile;
}

/** silu(gate x) * (up x) of 32 hidden components, for every row. */
function up<T>(ffn: Ffn, task: u32): void {
  const params = ffn.params;
  const groups = load<u32>(ffn.group(0) - 64);
  const spare = ffn.tile() + 32;
  for (let g: u32 = 0; g < groups; g++) {
    const slot = load<u32>(ffn.group(g));
    const first = load<u32>(ffn.group(g), 4);
    const count = load<u32>(ffn.group(g), 8);
    const x = ffn.addresses();
    for (let i: u32 = 0; i < count; i++) store<usize>(x + i * 4, ffn.token(load<u32>(ffn.rows() + (first + i) * 4) / params.top_k));
    products<T>(tile_of<T>(ffn, params.gate, slot, params.hidden, params.dim, task), x, count, ffn.sums(), ffn.wide(), spare);
    products<T>(tile_of<T>(ffn, params.up, slot, params.hidden, params.dim, task), x, count, ffn.up_sums(), ffn.wide(), spare);
    for (let i: u32 = 0; i < count; i++) {
      const to = ffn.inside(first + i) + task * TILE_ROWS * 4;
      for (let j: usize = 0; j < TILE_ROWS * 4; j += 16) {
        const at = i * TILE_ROWS * 4 + j;
        v128.store(to + j, f32x4.mul(silu(v128.load(ffn.sums() + at)), v128.load(ffn.up_sums() + at)));
      }
    }
  }
}

/** 32 components of the result, for every row. */
function down<T>(ffn: Ffn, task: u32): void {
  const params = ffn.params;
  const groups = load<u32>(ffn.group(0) - 64);
  for (let g: u32 = 0; g < groups; g++) {
    const slot = load<u32>(ffn.group(g));
    const first = load<u32>(ffn.group(g), 4);
    const count = load<u32>(ffn.group(g), 8);
    const x = ffn.addresses();
    for (let i: u32 = 0; i < count; i++) store<usize>(x + i * 4, ffn.inside(first + i));
    const tile = tile_of<T>(ffn, params.down, slot, params.dim, params.hidden, task);
    products<T>(tile, x, count, ffn.sums(), ffn.wide(), ffn.tile() + 32);
    for (let i: u32 = 0; i < count; i++) {
      const to = params.out + load<u32>(ffn.rows() + (first + i) * 4) * (<usize>params.dim * 4) + task * TILE_ROWS * 4;
      memory.copy(to, ffn.sums() + i * TILE_ROWS * 4, tile.n * 4);
    }
  }
}

/** g / (1 + exp(-g)); 0 from -87 down, where exp's own bound would show; a NaN stays. */
function silu(g: v128): v128 {
  const value = f32x4.div(g, f32x4.add(f32x4.splat(1), math.exp(f32x4.neg(g))));
  return v128.andnot(value, f32x4.le(g, f32x4.splat(-87)));
}
