// model/embedding: out_t = table[ids_t], widened to f32. Exact: each value is widened, and of q8_0 multiplied by its
// block's scale, without rounding. Ids are compared where they are loaded, and used as compared. A task is 256 KiB of
// results: bound by bandwidth.
import { DTYPE_BF16, DTYPE_F16, DTYPE_F32, MODEL_EMBEDDING_PORT_IDS, ModelEmbeddingParams } from "../gen/params";
import { fail, KernelPlan, Status } from "../lib/kernel";
import { Q8, Q8_BYTES, q8 } from "../lib/q8";
import { simd } from "../lib/simd";

const TASK_FLOATS: u32 = 64 << 10;

export function model_embedding_plan(params: ModelEmbeddingParams, slots: u32, out: KernelPlan): void {
  const each = task_tokens(params);
  out.kernel = 0;
  out.phases = params.tokens > 0 ? 1 : 0;
  out.tasks0 = <u32>((<u64>params.tokens + each - 1) / each);
  // The rest of a row.
  out.scratch_bytes = 64 * <f64>slots;
}

export function model_embedding_task(
  params: ModelEmbeddingParams,
  scratch: usize,
  phase: u32,
  task: u32,
  slot: u32,
  slots: u32,
  status: Status,
): void {
  const each = task_tokens(params);
  const end = min(params.tokens, (task + 1) * each);
  for (let token = task * each; token < end; token++) look_up(params, token, scratch + slot * 64, status);
}

function task_tokens(params: ModelEmbeddingParams): u32 {
  return max<u32>(1, TASK_FLOATS / params.dim);
}

function look_up(params: ModelEmbeddingParams, token: u32, rest: usize, status: Status): void {
  const id = load<i32>(params.ids + token * 4);
  const dim = params.dim;
  const out = params.out + token * dim * 4;
  if (id < 0 || <u32>id >= params.vocab) {
    fail(status, MODEL_EMBEDDING_PORT_IDS, token, id);
    memory.fill(out, 0, dim * 4);
    return;
  }
  const dtype = params.table_dtype;
  if (dtype == DTYPE_F32) memory.copy(out, params.table + <usize>id * dim * 4, dim * 4);
  else if (dtype == DTYPE_F16) widen<u16>(params.table + <usize>id * dim * 2, dim, out, rest);
  else if (dtype == DTYPE_BF16) widen<i16>(params.table + <usize>id * dim * 2, dim, out, rest);
  else widen_blocks(params.table + <usize>id * (dim / Q8) * Q8_BYTES, dim, out);
}

function widen<T>(row: usize, dim: u32, out: usize, rest: usize): void {
  const whole = dim & ~3;
  for (let i: u32 = 0; i < whole; i += 4) v128.store(out + i * 4, simd.load<T>(row + i * sizeof<T>()));
  if (whole == dim) return;
  v128.store(rest, f32x4.splat(0));
  memory.copy(rest, row + whole * sizeof<T>(), (dim - whole) * sizeof<T>());
  v128.store(rest, simd.load<T>(rest));
  memory.copy(out + whole * 4, rest, (dim - whole) * 4);
}

function widen_blocks(row: usize, dim: u32, out: usize): void {
  for (let i: u32 = 0; i < dim; i += 4) v128.store(out + i * 4, q8.load(row + (i / Q8) * Q8_BYTES, i % Q8));
}
