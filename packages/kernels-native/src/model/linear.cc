// model/linear: out = x weight^T + bias + residual.
//
// Up to 4 tokens ("rows"): each row of weights is read once, where it lies, and meets all the vectors; 4 rows side by
// side, sums over whole vectors and a rest that is copied out; q8_0 sums a block, then multiplies by its scale. Bound
// by the bandwidth of the weights. More ("panel"): linear_panel.h, 6 tokens x 2 vectors of rows with sums in registers,
// columns in runs of 256 that stay in the first-level cache; bound by multiply-add. All in f32; no sum depends on the
// other tokens or on the threads. A task is 64 rows or 256 KiB of weights: 10 us of one core's bandwidth.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/row_dots.h"
#include "linear_panel.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int kFewTokens = 4;
constexpr int64_t kTaskBytes = 256 << 10;

int64_t row_bytes(const model_linear_params& p) {
  switch (p.weight_dtype) {
    case dtype_f32: return p.in_dim * 4;
    case dtype_q8_0: return p.in_dim / kQ8 * int64_t(sizeof(q8));
    default: return p.in_dim * 2;
  }
}

// By the capacity would be another kernel for fewer tokens at run time; the plan is made anew for each size.
bool few(const model_linear_params& p) { return p.tokens <= kFewTokens; }

int64_t task_rows(const model_linear_params& p) {
  return few(p) ? most(4, kTaskBytes / row_bytes(p) / 4 * 4) : round_up(64, kPanelRows);
}
int64_t token_tiles(const model_linear_params& p) { return (p.tokens + kTokenTile - 1) / kTokenTile; }
int64_t packed_floats(const model_linear_params& p) { return token_tiles(p) * kTokenTile * p.in_dim; }

// Dot products of R rows of weights with Q vectors: out [Q][4].
template <class T, int Q, int R>
inline void row_sums(const T* const* rows, const float* x, int64_t dim, float (*out)[4]) {
  f32v sum[Q][4], square[4];
  stream_sums<T, Q, R, Pass::again, false>(rows, dim, x, dim, nullptr, sum, square);
  const int64_t whole = dim / kLanes * kLanes;
  if (whole < dim) {
    for (int r = 0; r < R; r++) {
      T rest[kLanes] = {};
      memcpy(rest, rows[r] + whole, size_t(dim - whole) * sizeof(T));
      const f32v w = load(rest);
      for (int q = 0; q < Q; q++) {
        float last[kLanes] = {};
        memcpy(last, x + q * dim + whole, size_t(dim - whole) * sizeof(float));
        sum[q][r] = madd(w, load(last), sum[q][r]);
      }
    }
  }
  for (int q = 0; q < Q; q++)
    for (int r = 0; r < R; r++) out[q][r] = reduce_add(sum[q][r]);
}

// The same of q8_0, block by block.
template <int Q, int R>
inline void q8_sums(const q8* const* rows, const float* x, int64_t dim, float (*out)[4]) {
  f32v sum[Q][R];
  for (int q = 0; q < Q; q++)
    for (int r = 0; r < R; r++) sum[q][r] = zero();
  for (int64_t b = 0; b < dim / kQ8; b++) {
#pragma GCC unroll 4
    for (int r = 0; r < R; r++) {
      const q8& block = rows[r][b];
      f32v part[Q];
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++) part[q] = zero();
#pragma GCC unroll 8
      for (int i = 0; i < kQ8; i += kLanes) {
        const f32v w = held(load(block.values + i));
#pragma GCC unroll 4
        for (int q = 0; q < Q; q++) part[q] = madd(w, load(x + q * dim + b * kQ8 + i), part[q]);
      }
      const f32v scale = splat(to_float(block.scale));
#pragma GCC unroll 4
      for (int q = 0; q < Q; q++) sum[q][r] = madd(scale, part[q], sum[q][r]);
    }
  }
  for (int q = 0; q < Q; q++)
    for (int r = 0; r < R; r++) out[q][r] = reduce_add(sum[q][r]);
}

inline void put(const model_linear_params& p, int64_t token, int64_t row, float sum) {
  const int64_t at = token * p.out_dim + row;
  if (p.bias) sum += p.bias[row];
  if (p.residual) sum += p.residual[at];
  p.out[at] = sum;
}

template <class T, int Q, int R>
inline void rows_at(const model_linear_params& p, int64_t row) {
  const int64_t pitch = sizeof(T) == sizeof(q8) ? p.in_dim / kQ8 : p.in_dim;
  const T* rows[4];
  for (int r = 0; r < R; r++) rows[r] = static_cast<const T*>(p.weight) + (row + r) * pitch;
  float sums[Q][4];
  if constexpr (sizeof(T) == sizeof(q8)) q8_sums<Q, R>(rows, p.x, p.in_dim, sums);
  else row_sums<T, Q, R>(rows, p.x, p.in_dim, sums);
  for (int q = 0; q < Q; q++)
    for (int r = 0; r < R; r++) put(p, q, row + r, sums[q][r]);
}

template <class T, int Q>
void run_rows(const model_linear_params& p, int64_t first, int64_t end) {
  // As many sums as fit the registers.
  constexpr int R = sizeof(T) == sizeof(q8) ? 4 : stream_rows(Q);
  for (; first + R <= end; first += R) rows_at<T, Q, R>(p, first);
  for (; first < end; first++) rows_at<T, Q, 1>(p, first);
}

template <class T>
void run_few(const model_linear_params& p, int64_t first, int64_t end) {
  switch (p.tokens) {
    case 1: return run_rows<T, 1>(p, first, end);
    case 2: return run_rows<T, 2>(p, first, end);
    case 3: return run_rows<T, 3>(p, first, end);
    default: return run_rows<T, 4>(p, first, end);
  }
}

// A tile of vectors as [in_dim][kTokenTile]; those that are not there are 0.
void pack_tokens(const model_linear_params& p, int64_t tile, float* packed) {
  float* const to = packed + tile * kTokenTile * p.in_dim;
  for (int q = 0; q < kTokenTile; q++) {
    const int64_t token = tile * kTokenTile + q;
    const float* const x = p.x + token * p.in_dim;
    if (token < p.tokens)
      for (int64_t i = 0; i < p.in_dim; i++) to[i * kTokenTile + q] = x[i];
    else
      for (int64_t i = 0; i < p.in_dim; i++) to[i * kTokenTile + q] = 0;
  }
}

// kPanelRows rows from `row` on, for all tokens. The sums wait in `partial` [tokens][kPanelRows] between runs of columns.
template <class T>
void run_panel(const model_linear_params& p, int64_t row, const float* packed, float* panel, float* partial) {
  const int64_t pitch = sizeof(T) == sizeof(q8) ? p.in_dim / kQ8 : p.in_dim;
  const int rows = int(least(kPanelRows, p.out_dim - row));
  const int64_t tiles = token_tiles(p);
  for (int64_t first = 0; first < p.in_dim; first += kPanelColumns) {
    const int64_t end = least(first + kPanelColumns, p.in_dim);
    pack_weights<T>(static_cast<const T*>(p.weight) + row * pitch, pitch, rows, first, end, panel);
    for (int64_t t = 0; t < tiles; t++) {
      const int tokens = int(least(kTokenTile, p.tokens - t * kTokenTile));
      panel_sums_for(tokens)(panel, packed + (t * p.in_dim + first) * kTokenTile, end - first, first > 0, partial + t * kTokenTile * kPanelRows, kPanelRows);
    }
  }
  for (int64_t t = 0; t < p.tokens; t++)
    for (int r = 0; r < rows; r++) put(p, t, row + r, partial[t * kPanelRows + r]);
}

struct Scratch {
  int64_t slots_at, panel_floats, slot_floats, bytes;
  Scratch(const model_linear_params& p, int slots) {
    slots_at = round_up(packed_floats(p), 16);
    panel_floats = kPanelColumns * kPanelRows;
    slot_floats = panel_floats + token_tiles(p) * kTokenTile * kPanelRows;
    bytes = (slots_at + slots * slot_floats) * 4;
  }
};

}  // namespace

void model_linear_plan(const model_linear_params& p, int slots, KernelPlan& plan) {
  plan.name = few(p) ? "rows" : "panel";
  if (p.tokens == 0) return;
  const int64_t tasks = (p.out_dim + task_rows(p) - 1) / task_rows(p);
  if (few(p)) {
    plan.phases = 1;
    plan.tasks[0] = tasks;
    return;
  }
  plan.scratch_bytes = Scratch(p, slots).bytes;
  plan.phases = 2;
  plan.tasks[0] = token_tiles(p);
  plan.tasks[1] = tasks;
}

void model_linear_task(const model_linear_params& p, const Task& task) {
  const int64_t each = task_rows(p), first = task.index * each, end = least(first + each, p.out_dim);
  if (few(p)) {
    switch (p.weight_dtype) {
      case dtype_f32: return run_few<float>(p, first, end);
      case dtype_f16: return run_few<f16>(p, first, end);
      case dtype_bf16: return run_few<bf16>(p, first, end);
      default: return run_few<q8>(p, first, end);
    }
  }
  float* const packed = reinterpret_cast<float*>(task.scratch);
  if (task.phase == 0) return pack_tokens(p, task.index, packed);
  const Scratch scratch(p, task.slots);
  float* const panel = packed + scratch.slots_at + task.slot * scratch.slot_floats;
  float* const partial = panel + scratch.panel_floats;
  for (int64_t row = first; row < end; row += kPanelRows) {
    switch (p.weight_dtype) {
      case dtype_f32: run_panel<float>(p, row, packed, panel, partial); break;
      case dtype_f16: run_panel<f16>(p, row, packed, panel, partial); break;
      case dtype_bf16: run_panel<bf16>(p, row, packed, panel, partial); break;
      default: run_panel<q8>(p, row, packed, panel, partial);
    }
  }
}

}  // namespace HOTSET_ISA
}  // namespace hotset
