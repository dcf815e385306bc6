// How search/scan is cut into chunks of rows and windows of queries, and where everything lies in the scratch.
#pragma once
#include "scan_list.h"

namespace hotset {

// Queries that stream the rows side by side, at most; beyond, panels.
constexpr int kStreamQueries = 4;
constexpr int kStreamBatch = 8;
constexpr int kListRoom = 64;
constexpr int kPanelRows = 128;
constexpr int kPanelColumns = 64;
// 16-bit values from row to row: 4 banks on, so that the lanes of a fragment never meet.
constexpr int kPanelPitch = kPanelColumns + 8;
// 16-bit parts of a row.
template <class T>
constexpr int kRowParts = sizeof(T) == 4 ? 2 : 1;
constexpr int64_t kListBytes = 128 << 20;
constexpr int64_t kLeastChunkRows = 256;

struct ScanShape {
  ListSize size;        // of a query's list in a block
  int queries;          // of a block
  int tiles;            // of 8 queries, for panels; 0 where rows are streamed
  int lanes;            // of a row, streamed
  bool whole;           // rows start on 16 bytes
  bool scaled;          // the parts of queries are f16, which need a scale
  int64_t window;       // queries at a time: the lists of more would be too large
  int64_t chunks, chunk_rows;
  int64_t padded;       // components of a query's parts, for panels
  int64_t heads_at, entries_at, results_at, parts_at, terms_at;  // in the scratch; the queue comes first
  int64_t scratch_bytes;

  // Of one query and one chunk: {count, floor}, and entries {key, row}; canonical keys where the chunk was repaired.
  __device__ uint2* head(char* scratch, int64_t query, int64_t chunk) const { return reinterpret_cast<uint2*>(scratch + heads_at) + query * chunks + chunk; }
  __device__ uint2* entries(char* scratch, int64_t query, int64_t chunk) const {
    return reinterpret_cast<uint2*>(scratch + entries_at) + (query * chunks + chunk) * size.high;
  }
  __device__ unsigned long long* results(char* scratch, int64_t query, int64_t k) const { return reinterpret_cast<unsigned long long*>(scratch + results_at) + query * k; }
};

// What has to be looked at again: chunks that may have lost a result, as query * chunks + chunk; and their queries.
struct ScanQueue {
  unsigned long long chunks, queries;
};
// A chunk that is in the queue.
constexpr unsigned kRepaired = 0x80000000u;

static inline __host__ __device__ int64_t panel_shared_bytes(const ListSize& size, int queries, int row_parts) {
  return int64_t(row_parts * kPanelRows + 2 * queries) * kPanelPitch * 2 + kPanelRows * 12 + queries * (int64_t(sizeof(QueryTerms)) + 8) + int64_t(queries) * size.capacity * 8;
}

// Queries first to last of the window against panels of rows (scan_panel.cu).
template <class T>
cudaError_t run_panels(const search_scan_params& p, const ScanShape& shape, int64_t first, int64_t last, const Run& run);

}  // namespace hotset
