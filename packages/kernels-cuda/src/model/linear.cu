// model/linear: out = x weight^T + bias + residual.
//
// Up to 8 tokens ("rows"): a warp takes 4 rows of weights, 8 neighbouring columns a lane (16 bytes of f16), widened once for
// all tokens; 2, 4 or 8 warps share the columns of a row where there are too few rows for 16 warps a multiprocessor, and
// join in order. f32 sums, the same wherever a token stands. Bound by the weights, read once: 4096 x 14336 of f16 are
// 117 MB, 24 us at an H200's 4.8 TB/s, which ask for 83 of its 128 multiply-adds a clock at 8 tokens; q8_0 for twice as many,
// so its floor is the arithmetic beyond 6 tokens. More tokens ("tiles"): linear_tiles.h, two tf32 products for each
// multiply-add (f32 weights: three); about 32 tokens hide behind the weights, beyond it the tensor cores are the floor,
// a half of 494 TFLOP/s. Vectors of fewer than 256 components stay with "rows", 8 tokens at a time.
#include "../launch.h"
#include "linear_tiles.h"

namespace hotset {

namespace {

constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
constexpr int kRows = 4;
constexpr int kFewTokens = 8;
// Columns that a warp takes at once.
constexpr int64_t kStep = 32 * 8;

// M tokens, of which the last may be there several times.
template <class T, int M>
__global__ void __launch_bounds__(kThreads, 2) multiply_rows(model_linear_params p, int parts, int64_t token_groups, bool whole) {
  __shared__ float shared[kWarps][32];
  const int lane = int(threadIdx.x) % 32, warp = int(threadIdx.x) / 32, part = warp % parts;
  const int64_t first_token = blockIdx.x % token_groups * M;
  const int64_t first_row = (blockIdx.x / token_groups * (kWarps / parts) + warp / parts) * kRows;
  float sum[kRows][M];
HOTSET_UNROLL
  for (int r = 0; r < kRows; r++)
HOTSET_UNROLL
    for (int m = 0; m < M; m++) sum[r][m] = 0;
  for (int64_t column = (part * 32 + lane) * 8; column < p.in_dim && first_row < p.out_dim; column += parts * kStep) {
    Eight<T> stored[kRows];
HOTSET_UNROLL
    for (int r = 0; r < kRows; r++)
      stored[r].load(static_cast<const char*>(p.weight) + least(first_row + r, p.out_dim - 1) * row_bytes<T>(p.in_dim), column, p.in_dim, whole);
    float weight[kRows][8];
HOTSET_UNROLL
    for (int r = 0; r < kRows; r++) {
      stored[r].values(weight[r]);
HOTSET_UNROLL
      for (int e = 0; e < 8 && sizeof(T) == 1; e++) weight[r][e] *= stored[r].scale();
    }
HOTSET_UNROLL
    for (int m = 0; m < M; m++) {
      Eight<float> vector;
      vector.load(reinterpret_cast<const char*>(p.x + least(first_token + m, p.tokens - 1) * p.in_dim), column, p.in_dim, whole);
      float x[8];
      vector.values(x);
HOTSET_UNROLL
      for (int r = 0; r < kRows; r++)
HOTSET_UNROLL
        for (int e = 0; e < 8; e++) sum[r][m] = fmaf(weight[r][e], x[e], sum[r][m]);
    }
  }
  // Lane r M + m keeps the sum of row r and token m.
  float mine = 0;
HOTSET_UNROLL
  for (int r = 0; r < kRows; r++)
HOTSET_UNROLL
    for (int m = 0; m < M; m++) {
      float all = sum[r][m];
      for (int lanes = 16; lanes > 0; lanes /= 2) all += __shfl_xor_sync(kAllLanes, all, lanes);
      if (lane == r * M + m) mine = all;
    }
  shared[warp][lane] = mine;
  __syncthreads();
  const int64_t row = first_row + lane / M, token = first_token + lane % M;
  if (part > 0 || lane >= kRows * M || row >= p.out_dim || token >= p.tokens) return;
  for (int i = 1; i < parts; i++) mine += shared[warp + i][lane];
  write_result(p, token, row, mine);
}

struct RowShape {
  int parts, tokens;  // warps of a row, tokens of a block
  int64_t token_groups, blocks;

  RowShape(const model_linear_params& p, const Device& device) {
    const int64_t groups = ceil_div(p.out_dim, kRows);
    for (parts = 1; parts < kWarps && groups * parts < 16 * device.multiprocessors && parts * kStep < p.in_dim;) parts *= 2;
    tokens = p.tokens == 1 ? 1 : p.tokens <= 4 ? 4 : kFewTokens;
    token_groups = ceil_div(p.tokens, tokens);
    blocks = ceil_div(groups, kWarps / parts) * token_groups;
  }
};

bool in_tiles(const model_linear_params& p) { return p.tokens > kFewTokens && p.in_dim >= kLeastTileColumns; }

template <class T>
cudaError_t run_typed(const model_linear_params& p, const Run& run) {
  const bool whole = p.in_dim % 8 == 0 && (reinterpret_cast<uintptr_t>(p.x) | reinterpret_cast<uintptr_t>(p.weight)) % 16 == 0;
  if (!in_tiles(p)) {
    const RowShape shape(p, *run.device);
    const auto kernel = shape.tokens == 1 ? multiply_rows<T, 1> : shape.tokens == 4 ? multiply_rows<T, 4> : multiply_rows<T, kFewTokens>;
    return launch(kernel, shape.blocks, kThreads, 0, run.stream, p, shape.parts, shape.token_groups, whole);
  }
  const TileShape shape(p, p.tokens, *run.device);
  float* const partial = reinterpret_cast<float*>(run.scratch);
  const cudaError_t error = launch(multiply_tiles<T>, shape.blocks(), kTileThreads, kTileShared, run.stream, p, shape, whole, partial);
  if (error != cudaSuccess || shape.splits == 1) return error;
  return launch(join_splits, ceil_div(p.tokens * p.out_dim, kTileThreads), kTileThreads, 0, run.stream, p, shape.splits, partial);
}

}  // namespace

void model_linear_plan(const model_linear_params& p, const Device& device, KernelPlan& plan) {
  plan.name = in_tiles(p) ? "tiles" : "rows";
  // Fewer tokens at run time may be split more often.
  for (int64_t tokens = least(p.tokens, kTileTokens); in_tiles(p); tokens = least(p.tokens, tokens + kTileTokens)) {
    const TileShape shape(p, tokens, device);
    if (shape.splits > 1) plan.scratch_bytes = most(plan.scratch_bytes, shape.splits * tokens * p.out_dim * 4);
    if (tokens == p.tokens || shape.splits == 1) break;
  }
  const int64_t blocks = in_tiles(p) ? most(TileShape(p, p.tokens, device).blocks(), ceil_div(p.tokens * p.out_dim, kTileThreads)) : RowShape(p, device).blocks;
  if (blocks > kLargestGrid) plan.refusal = "more tokens or rows than a grid has blocks";
}

cudaError_t model_linear_run(const model_linear_params& p, const Run& run) {
  if (p.tokens == 0) return cudaSuccess;
  switch (p.weight_dtype) {
    case dtype_f32: return run_typed<float>(p, run);
    case dtype_f16: return run_typed<f16>(p, run);
    case dtype_bf16: return run_typed<bf16>(p, run);
    default: return run_typed<q8_0>(p, run);
  }
}

}  // namespace hotset
