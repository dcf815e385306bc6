// How a scan is cut into tasks and where everything lies in the scratch; and one task's view of it.
import { DTYPE_F16, DTYPE_F32, DTYPE_I8, SearchScanParams } from "../gen/params";
import { align_line } from "../lib/kernel";
import { Reservoir, reservoir_bytes, reservoir_capacity } from "./scan-reservoir";
import { BLOCK_ROWS, ROW_BLOCK_BYTES, RowBlock } from "./scan-rows";

const TASK_BYTES: u64 = 512 << 10;
const QUERY_BLOCK: u64 = 192;
// The queries of a block stay in the L2 cache beside one panel.
const QUERY_BYTES: u64 = 256 << 10;
// Beyond this, tasks are blocks of queries over all rows, which need no list per query and thread.
const MAX_RESERVOIR_BYTES: u64 = 1 << 26;
const CONTEXT_BYTES: u64 = 256;

/** How one query is scored, exactly and approximately. */
@unmanaged
export class QueryTerms {
  /** Canonical |q|^2. */
  square: f64;
  /** error = |row| * error_factor + row term + error_constant */
  error_factor: f32;
  error_constant: f32;
  /** Of the quantised query. */
  scale: f32;
  /** It holds a NaN: nothing matches. */
  dead: u32;
  /** For i8 rows by inner product: error = |row scale| * scaled_factor + error_constant */
  scaled_factor: f32;
  padding: u32;
}

// Streamed up to so many queries; more are worth a panel. Rows of 128, 12 and 16 queries: 109 against 111 and 140
// against 133 ns a row (f32). 16-bit rows are widened again for every four queries: 112 against 129 ns at 5 (f16).
const STREAM_QUERIES: u64 = 12;
const STREAM_F16_QUERIES: u64 = 4;
const STREAM_BF16_QUERIES: u64 = 8;
// Sums of a panel of integers would leave too few bits to the queries of longer rows.
const PANEL_INTEGER_DIM: u32 = 4096;

@unmanaged
export class Scan {
  params: SearchScanParams;
  scratch: usize;
  slot: u32;
  slots: u32;
  /** Packed panels, or rows streamed where they lie. */
  panel: bool;
  /** i8 rows: 16-bit queries, integer sums. */
  integers: bool;
  /** Tasks are ranges of rows; else each task is a block of queries over all rows. */
  split: bool;
  /** Queries of a block, and blocks. */
  block: u32;
  blocks: u32;
  task_rows: u32;
  row_tasks: u32;
  /** Elements of one prepared query. */
  query_length: u32;
  /** Bytes of one prepared block of queries. */
  query_bytes: u64;
  reservoir_bytes: u64;
  /** Reservoirs of one slot. */
  slot_queries: u64;
  queries_at: u64;
  reservoirs_at: u64;
  slots_at: u64;
  slot_bytes: u64;
  bytes: u64;

  /** Fills everything from the parameters. Sizes are 64-bit: a plan may find that they do not fit. */
  cut(params: SearchScanParams, slots: u32): void {
    const batch: u64 = params.batch;
    this.params = params;
    this.slots = slots;
    this.integers = params.rows_dtype == DTYPE_I8;
    const element: u64 = element_bytes(params);
    const task_rows = max<u64>(64, ((TASK_BYTES / (element * params.dim)) >> 6) << 6);
    this.task_rows = <u32>task_rows;
    this.row_tasks = <u32>((<u64>params.count + task_rows - 1) / task_rows);
    this.reservoir_bytes = reservoir_bytes(params.k);
    this.lay_out(batch, batch > this.streamed());
    const fits = slots * batch * this.reservoir_bytes <= MAX_RESERVOIR_BYTES;
    this.place(batch, this.may_split() && this.blocks < 4 * slots && fits);
  }

  /** The largest number of bytes that this or any smaller number of queries and rows needs. */
  capacity_bytes(): u64 {
    const batch: u64 = this.params.batch;
    const streamed = this.streamed();
    let bytes: u64 = 0;
    for (let kind = 0; kind < 4; kind++) {
      const panel = (kind & 1) != 0;
      const split = (kind & 2) != 0;
      if ((panel && batch <= streamed) || (split && !this.may_split())) continue;
      let queries = panel ? batch : min(batch, streamed);
      this.lay_out(queries, panel);
      if (split) {
        // The most that is split.
        const fitting = MAX_RESERVOIR_BYTES / (<u64>this.slots * this.reservoir_bytes);
        queries = min(queries, min(<u64>(4 * this.slots - 1) * this.block, fitting));
        this.lay_out(queries, panel);
      }
      this.place(queries, split);
      bytes = max(bytes, this.bytes);
    }
    return bytes;
  }

  private may_split(): bool {
    return this.slots > 1 && this.row_tasks > 1;
  }

  private streamed(): u64 {
    if (this.integers) return this.params.dim > PANEL_INTEGER_DIM ? u64.MAX_VALUE : STREAM_QUERIES;
    if (this.params.rows_dtype == DTYPE_F32) return STREAM_QUERIES;
    return this.params.rows_dtype == DTYPE_F16 ? STREAM_F16_QUERIES : STREAM_BF16_QUERIES;
  }

  /** Blocks of queries and the form they are prepared in. */
  private lay_out(batch: u64, panel: bool): void {
    const dim: u64 = this.params.dim;
    const fitting = (QUERY_BYTES / (4 * dim)) & ~3;
    const block = min((max<u64>(batch, 1) + 3) & ~3, min(QUERY_BLOCK, max<u64>(8, fitting)));
    this.panel = panel;
    this.block = <u32>block;
    this.blocks = <u32>((batch + block - 1) / block);
    // Panels take whole pairs of integers; streams whole vectors and one more.
    const length = panel ? (this.integers ? (dim + 1) & ~1 : dim) : this.integers ? (dim & ~7) + 8 : (dim & ~3) + 4;
    this.query_length = <u32>length;
    this.query_bytes = align_line(block * length * (this.integers ? 2 : 4));
  }

  private place(batch: u64, split: bool): void {
    const params = this.params;
    const slots: u64 = this.slots;
    this.split = split;
    this.slot_queries = split ? batch : this.block;
    this.queries_at = align_line(slots * CONTEXT_BYTES + batch * offsetof<QueryTerms>());
    this.reservoirs_at = this.queries_at + (split ? this.blocks : slots) * this.query_bytes;
    this.slots_at = align_line(this.reservoirs_at + slots * this.slot_queries * this.reservoir_bytes);
    const panel_bytes: u64 = this.panel ? 32 * ((<u64>params.dim + 7) & ~7) : 0;
    this.slot_bytes = align_line(this.panel_at() + panel_bytes);
    this.bytes = this.slots_at + slots * this.slot_bytes;
  }

  // What each slot has to itself: a block of rows, its dot products with four queries, 64 bytes for odd ends, keys to
  // select from [2 * capacity of a reservoir], a widened row or quantised query [dim], a panel.
  private dots_at(): u64 {
    return ROW_BLOCK_BYTES;
  }
  private ends_at(): u64 {
    return this.dots_at() + 16 * BLOCK_ROWS;
  }
  private work_at(): u64 {
    return this.ends_at() + 64;
  }
  private buffer_at(): u64 {
    return align_line(this.work_at() + 16 * <u64>reservoir_capacity(this.params.k));
  }
  private panel_at(): u64 {
    return align_line(this.buffer_at() + 8 * <u64>this.params.dim);
  }

  own(): usize {
    return this.scratch + <usize>this.slots_at + this.slot * <usize>this.slot_bytes;
  }
  rows(): RowBlock {
    return changetype<RowBlock>(this.own());
  }
  dots(): usize {
    return this.own() + <usize>this.dots_at();
  }
  ends(): usize {
    return this.own() + <usize>this.ends_at();
  }
  work(): usize {
    return this.own() + <usize>this.work_at();
  }
  buffer(): usize {
    return this.own() + <usize>this.buffer_at();
  }
  panel_memory(): usize {
    return this.own() + <usize>this.panel_at();
  }

  terms(query: u32): QueryTerms {
    return changetype<QueryTerms>(this.scratch + this.slots * <usize>CONTEXT_BYTES + query * offsetof<QueryTerms>());
  }
  /** The prepared queries of a block. */
  queries(block: u32): usize {
    return this.scratch + <usize>this.queries_at + (this.split ? block : this.slot) * <usize>this.query_bytes;
  }
  reservoir(slot: u32, query: u32): Reservoir {
    return this.reservoir_at(slot, this.split ? query : query % this.block);
  }
  /** `at`: the query's number, or that in the block where tasks are blocks of queries. */
  reservoir_at(slot: u32, place: u32): Reservoir {
    const at = slot * <usize>this.slot_queries + place;
    return changetype<Reservoir>(this.scratch + <usize>this.reservoirs_at + at * <usize>this.reservoir_bytes);
  }
}

/** A task's view, at its slot's place in the scratch. */
export function scan_of(params: SearchScanParams, scratch: usize, slot: u32, slots: u32): Scan {
  const scan = changetype<Scan>(scratch + slot * <usize>CONTEXT_BYTES);
  scan.cut(params, slots);
  scan.scratch = scratch;
  scan.slot = slot;
  return scan;
}

function element_bytes(params: SearchScanParams): u32 {
  return params.rows_dtype == DTYPE_F32 ? 4 : params.rows_dtype == DTYPE_I8 ? 1 : 2;
}
