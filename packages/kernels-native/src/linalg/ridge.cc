// linalg/ridge: (X^T X + penalty I) W = X^T Y.
//
// Four phases. Tasks of at least 1024 rows, at most 16 and cut by the shape only, sum the upper part of X^T [X Y]: runs
// of 128 rows are packed as panels of two vectors of columns (8 KiB, the first cache), and tiles of 6 or 12 columns by a
// panel run over them with all sums in registers; a run's f32 sums are added to the task's f64 ones. These are joined in
// order, factorised as U^T U, and solved for 16 outputs a task, all f64. So the bits do not depend on the threads.
// Bound by multiply-add: 129 features and 32 outputs are some 40 a byte.
#include "../gen/params.h"
#include "../kernel.h"
#include "../simd/simd.h"

namespace hotset {
namespace HOTSET_ISA {

namespace {

constexpr int64_t kRunRows = 128;
constexpr int64_t kTaskRows = 1024;
constexpr int64_t kMaxTasks = 16;
// Sums of all tasks together: beyond this, fewer tasks.
constexpr int64_t kSumsBytes = 64 << 20;
constexpr int kVectors = 2;
constexpr int kPanel = kVectors * kLanes;
constexpr int kTile = kRegisters == 32 ? 12 : 6;
constexpr int64_t kSolveOutputs = 16;

struct Shape {
  int64_t width, panels, sums, tasks, task_rows, verdict_at, run_at, run_bytes, bytes;

  Shape(const linalg_ridge_params& p, int slots) {
    width = p.features + p.outputs;
    panels = (width + kPanel - 1) / kPanel;
    sums = p.features * panels * kPanel;
    const int64_t room = most(1, least(kMaxTasks, kSumsBytes / (sums * 8)));
    task_rows = most(kTaskRows, round_up((p.rows + room - 1) / room, kRunRows));
    tasks = most(1, (p.rows + task_rows - 1) / task_rows);
    verdict_at = round_up(room * sums * 8, 64);
    run_at = verdict_at + 64;
    // Behind the last panel, what the last tile reads of columns that are not there.
    run_bytes = round_up((panels * kPanel * kRunRows + kPanel) * 4, 64);
    bytes = run_at + slots * run_bytes;
  }
};

// One task's view of the parameters and the scratch.
struct Ridge {
  const linalg_ridge_params& p;
  const Shape shape;
  const Task& task;
  const int64_t pitch;

  Ridge(const linalg_ridge_params& params, const Task& t) : p(params), shape(params, t.slots), task(t), pitch(shape.panels * kPanel) {}

  double* sums(int64_t of) const { return reinterpret_cast<double*>(task.scratch) + of * shape.sums; }
  int32_t& verdict() const { return *reinterpret_cast<int32_t*>(task.scratch + shape.verdict_at); }
  float* run() const { return reinterpret_cast<float*>(task.scratch + shape.run_at + task.slot * shape.run_bytes); }

  void add_rows() const {
    double* const total = sums(task.index);
    memset(total, 0, size_t(shape.sums) * sizeof(double));
    const int64_t first = task.index * shape.task_rows, end = least(p.rows, first + shape.task_rows);
    for (int64_t row = first; row < end; row += kRunRows) {
      const int64_t rows = least(kRunRows, end - row);
      pack(row, rows);
      for (int64_t i = 0; i < p.features; i += kTile)
        for (int64_t panel = i / kPanel; panel < shape.panels; panel++) add_tile(i, panel, rows, total);
    }
  }

  // Rows as panels [panel][row][kPanel]; columns of X, then of Y, then zeros.
  void pack(int64_t row, int64_t rows) const {
    float* const to = run();
    for (int64_t r = 0; r < rows; r++) {
      const float* const x = p.x + (row + r) * p.features;
      const float* const y = p.y + (row + r) * p.outputs;
      for (int64_t panel = 0; panel < shape.panels; panel++) {
        float* const out = to + (panel * kRunRows + r) * kPanel;
        const int64_t c = panel * kPanel;
        if (c + kPanel <= p.features) {
          memcpy(out, x + c, kPanel * sizeof(float));
        } else if (c >= p.features && c + kPanel <= shape.width) {
          memcpy(out, y + (c - p.features), kPanel * sizeof(float));
        } else {
          for (int64_t j = 0; j < kPanel; j++) out[j] = c + j < p.features ? x[c + j] : c + j < shape.width ? y[c + j - p.features] : 0;
        }
      }
    }
  }

  // Columns i to i + kTile of X by a panel of columns, over one run.
  void add_tile(int64_t i, int64_t panel, int64_t rows, double* total) const {
    const float* const packed = run();
    const float* left[kTile];
    for (int q = 0; q < kTile; q++) {
      const int64_t column = least(i + q, p.features - 1);
      left[q] = packed + column / kPanel * kRunRows * kPanel + column % kPanel;
    }
    const float* const right = packed + panel * kRunRows * kPanel;
    f32v s[kTile][kVectors];
#pragma GCC unroll 16
    for (int q = 0; q < kTile; q++)
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) s[q][v] = zero();
    for (int64_t at = 0; at < rows * kPanel; at += kPanel) {
      f32v x[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; v++) x[v] = held(load(right + at + v * kLanes));
#pragma GCC unroll 16
      for (int q = 0; q < kTile; q++) {
        const f32v y = splat(left[q][at]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; v++) s[q][v] = madd(y, x[v], s[q][v]);
      }
    }
    alignas(64) float out[kPanel];
    for (int q = 0; q < kTile && i + q < p.features; q++) {
      for (int v = 0; v < kVectors; v++) store(out + v * kLanes, s[q][v]);
      double* const to = total + (i + q) * pitch + panel * kPanel;
      for (int j = 0; j < kPanel; j++) to[j] += double(out[j]);
    }
  }

  // Row `index` of the sums of all tasks, in their order, into the first task's.
  void join() const {
    const int64_t i = task.index;
    double* const to = sums(0) + i * pitch;
    for (int64_t of = 1; of < shape.tasks; of++) {
      const double* const from = sums(of) + i * pitch;
      for (int64_t j = i; j < shape.width; j++) to[j] += from[j];
    }
    to[i] += double(p.penalty);
  }

  // U^T U in place, row by row.
  void factorise() const {
    double* const u = sums(0);
    verdict() = 0;
    for (int64_t k = 0; k < p.features; k++) {
      double* const row = u + k * pitch;
      if (!(row[k] > 0 && is_finite(row[k]))) return;
      const double root = __builtin_sqrt(row[k]);
      for (int64_t j = k; j < p.features; j++) row[j] /= root;
      for (int64_t i = k + 1; i < p.features; i++) {
        const double factor = row[i];
        double* const to = u + i * pitch;
        for (int64_t j = i; j < p.features; j++) to[j] -= factor * row[j];
      }
    }
    verdict() = 1;
  }

  // U^T Z = X^T Y, then U W = Z, for a block of outputs, in their place beside U.
  void solve() const {
    const int64_t first = task.index * kSolveOutputs, n = least(kSolveOutputs, p.outputs - first);
    double* const u = sums(0);
    double* const b = u + p.features + first;
    if (!verdict()) {
      for (int64_t i = 0; i < p.features; i++)
        for (int64_t c = 0; c < n; c++) p.weights[i * p.outputs + first + c] = NAN;
      return;
    }
    for (int64_t k = 0; k < p.features; k++) {
      double* const from = b + k * pitch;
      for (int64_t c = 0; c < n; c++) from[c] /= u[k * pitch + k];
      for (int64_t i = k + 1; i < p.features; i++) {
        const double factor = u[k * pitch + i];
        for (int64_t c = 0; c < n; c++) b[i * pitch + c] -= factor * from[c];
      }
    }
    for (int64_t k = p.features - 1; k >= 0; k--) {
      double* const from = b + k * pitch;
      for (int64_t c = 0; c < n; c++) from[c] /= u[k * pitch + k];
      for (int64_t i = 0; i < k; i++) {
        const double factor = u[i * pitch + k];
        for (int64_t c = 0; c < n; c++) b[i * pitch + c] -= factor * from[c];
      }
      for (int64_t c = 0; c < n; c++) p.weights[k * p.outputs + first + c] = float(from[c]);
    }
  }
};

}  // namespace

void linalg_ridge_plan(const linalg_ridge_params& p, int slots, KernelPlan& plan) {
  const Shape shape(p, slots);
  plan.name = "runs";
  plan.scratch_bytes = shape.bytes;
  plan.phases = 4;
  plan.tasks[0] = shape.tasks;
  plan.tasks[1] = p.features;
  plan.tasks[2] = 1;
  plan.tasks[3] = (p.outputs + kSolveOutputs - 1) / kSolveOutputs;
}

void linalg_ridge_task(const linalg_ridge_params& p, const Task& task) {
  const Ridge ridge(p, task);
  if (task.phase == 0) ridge.add_rows();
  else if (task.phase == 1) ridge.join();
  else if (task.phase == 2) ridge.factorise();
  else ridge.solve();
}

}  // namespace HOTSET_ISA
}  // namespace hotset
