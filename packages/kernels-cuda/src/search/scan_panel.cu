// search/scan for batches: see scan.cu. A block takes 64 queries and a chunk of rows, 128 rows at a time, 16 a warp.
// A step of 16 components is 16 products of tiles (24 for f32 rows) beside 36 words from shared memory a lane, which
// bound it; rows are read once per 64 queries.
#include "../launch.h"
#include "scan_panel.h"

namespace hotset {

template <class T>
cudaError_t run_panels(const search_scan_params& p, const ScanShape& shape, int64_t first, int64_t last, const Run& run) {
  const cudaError_t error = launch(split_queries<typename PanelType<T>::Part>, last - first, kScanThreads, 0, run.stream, p, shape, first, run.scratch);
  if (error != cudaSuccess) return error;
  const auto kernel = shape.tiles == 8 ? panel_rows<T, 8> : shape.tiles == 2 ? panel_rows<T, 2> : panel_rows<T, 1>;
  const int64_t shared_bytes = panel_shared_bytes(shape.size, shape.queries, kRowParts<T>);
  return launch(kernel, ceil_div(last - first, shape.queries) * shape.chunks, kScanThreads, shared_bytes, run.stream, p, shape, last - first, run.scratch);
}

template cudaError_t run_panels<float>(const search_scan_params&, const ScanShape&, int64_t, int64_t, const Run&);
template cudaError_t run_panels<f16>(const search_scan_params&, const ScanShape&, int64_t, int64_t, const Run&);
template cudaError_t run_panels<bf16>(const search_scan_params&, const ScanShape&, int64_t, int64_t, const Run&);
template cudaError_t run_panels<int8_t>(const search_scan_params&, const ScanShape&, int64_t, int64_t, const Run&);

}  // namespace hotset
