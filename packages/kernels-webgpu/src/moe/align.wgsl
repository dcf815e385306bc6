// moe/align: assignments in the order of their experts, each expert's filled up to whole blocks: a stable counting sort.
// Assignments are cut into chunks, a workgroup each. Pass `count`: how many of a chunk go to each expert. `sum_up`: a thread
// an expert, what the chunks before have. `lay_out`: one workgroup, where each expert's rows start. `fill`: -1 everywhere, and
// the blocks' experts. `put`: a chunk's assignments, a workgroup's threads at a time: a thread's place is its expert's next row
// and how many threads before it have the same expert, so that no order of execution shows.
// What fits one chunk is done by one workgroup in one pass, `whole`.
// Bound by latency; `put` compares 128 x 128 ids a round, 8 rounds a chunk of 1024.
override workgroup_threads: u32 = 128u;
const nobody: u32 = 0xffffffffu;

struct Window {
  chunk: u32,
  chunks: u32,
}
struct Uniforms {
  params: MoeAlignParams,
  window: Window,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
// Behind the faults: the first row of each expert, and of none; its assignments; what each chunk has of it, later its next row:
// [chunks, experts].
@group(0) @binding(1) var<storage, read_write> work: array<atomic<u32>>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> sorted: array<u32>;
@group(0) @binding(4) var<storage, read_write> block_expert: array<u32>;
@group(0) @binding(5) var<storage, read_write> total: array<u32>;

const starts_at: u32 = 64u;
fn sums_at() -> u32 {
  return starts_at + uniforms.params.experts + 1u;
}
fn counts_at(chunk: u32) -> u32 {
  return sums_at() + (1u + chunk) * uniforms.params.experts;
}

var<workgroup> rows_before: array<u32, workgroup_threads>;
var<workgroup> held: array<u32, workgroup_threads>;

// The expert of an assignment; nobody where there is none.
fn expert_of(i: u32) -> u32 {
  let id = ids[i];
  if (id < uniforms.params.experts) {
    return id;
  }
  if (id != nobody) {
    atomicMax(&work[0], ~i);
  }
  return nobody;
}

fn end_of(chunk: u32) -> u32 {
  return min((chunk + 1u) * uniforms.window.chunk, uniforms.params.tokens * uniforms.params.top_k);
}

fn count_chunk(chunk: u32, thread: u32) {
  for (var e = thread; e < uniforms.params.experts; e += workgroup_threads) {
    atomicStore(&work[counts_at(chunk) + e], 0u);
  }
  storageBarrier();
  for (var i = chunk * uniforms.window.chunk + thread; i < end_of(chunk); i += workgroup_threads) {
    let expert = expert_of(i);
    if (expert != nobody) {
      atomicAdd(&work[counts_at(chunk) + expert], 1u);
    }
  }
}

fn sum_expert(expert: u32) {
  var sum = 0u;
  for (var chunk = 0u; chunk < uniforms.window.chunks; chunk++) {
    let at = counts_at(chunk) + expert;
    let count = atomicLoad(&work[at]);
    atomicStore(&work[at], sum);
    sum += count;
  }
  atomicStore(&work[sums_at() + expert], sum);
}

fn lay_out_experts(thread: u32) {
  let size = uniforms.params.block_size;
  var before = 0u;
  for (var base = 0u; base < uniforms.params.experts; base += workgroup_threads) {
    let expert = base + thread;
    var rows = 0u;
    if (expert < uniforms.params.experts) {
      rows = (atomicLoad(&work[sums_at() + expert]) + size - 1u) / size * size;
    }
    var sum = rows;
    for (var apart = 1u; apart < workgroup_threads; apart *= 2u) {
      rows_before[thread] = sum;
      workgroupBarrier();
      if (thread >= apart) {
        sum += rows_before[thread - apart];
      }
      workgroupBarrier();
    }
    rows_before[thread] = sum;
    workgroupBarrier();
    if (expert < uniforms.params.experts) {
      atomicStore(&work[starts_at + expert], before + sum - rows);
    }
    before += rows_before[workgroup_threads - 1u];
    workgroupBarrier();
  }
  if (thread == 0u) {
    atomicStore(&work[starts_at + uniforms.params.experts], before);
    total[0] = before;
  }
}

// A row, and a block.
fn fill_row(i: u32) {
  if (i < uniforms.params.capacity) {
    sorted[i] = nobody;
  }
  let size = uniforms.params.block_size;
  if (i < (uniforms.params.capacity + size - 1u) / size) {
    block_expert[i] = select(expert_at(i * size), nobody, i * size >= atomicLoad(&work[starts_at + uniforms.params.experts]));
  }
}

// The last expert whose rows start no later: those before it have none there.
fn expert_at(row: u32) -> u32 {
  var low = 0u;
  var high = uniforms.params.experts;
  while (high - low > 1u) {
    let middle = (low + high) / 2u;
    if (atomicLoad(&work[starts_at + middle]) <= row) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

fn put_chunk(chunk: u32, thread: u32) {
  let end = end_of(chunk);
  for (var base = chunk * uniforms.window.chunk; base < end; base += workgroup_threads) {
    let i = base + thread;
    var expert = nobody;
    if (i < end) {
      expert = expert_of(i);
    }
    held[thread] = expert;
    workgroupBarrier();
    var earlier = 0u;
    var later = 0u;
    for (var other = 0u; other < workgroup_threads; other++) {
      let same = held[other] == expert;
      earlier += u32(same && other < thread);
      later += u32(same && other > thread);
    }
    let at = counts_at(chunk) + min(expert, uniforms.params.experts - 1u);
    let next = atomicLoad(&work[at]) + earlier;
    if (expert != nobody) {
      sorted[atomicLoad(&work[starts_at + expert]) + next] = i;
    }
    // All have read what the last of each expert now writes.
    storageBarrier();
    workgroupBarrier();
    if (expert != nobody && later == 0u) {
      atomicStore(&work[at], next + 1u);
    }
    storageBarrier();
    workgroupBarrier();
  }
}

@compute @workgroup_size(workgroup_threads)
fn count(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  count_chunk(group.x, thread);
}

@compute @workgroup_size(workgroup_threads)
fn sum_up(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  let expert = group.x * workgroup_threads + thread;
  if (expert < uniforms.params.experts) {
    sum_expert(expert);
  }
}

@compute @workgroup_size(workgroup_threads)
fn lay_out(@builtin(local_invocation_index) thread: u32) {
  lay_out_experts(thread);
}

@compute @workgroup_size(workgroup_threads)
fn fill(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  fill_row((group.y * groups.x + group.x) * workgroup_threads + thread);
}

@compute @workgroup_size(workgroup_threads)
fn put(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) thread: u32) {
  put_chunk(group.x, thread);
}

@compute @workgroup_size(workgroup_threads)
fn whole(@builtin(local_invocation_index) thread: u32) {
  count_chunk(0u, thread);
  storageBarrier();
  for (var expert = thread; expert < uniforms.params.experts; expert += workgroup_threads) {
    sum_expert(expert);
  }
  storageBarrier();
  lay_out_experts(thread);
  storageBarrier();
  for (var i = thread; i < uniforms.params.capacity; i += workgroup_threads) {
    fill_row(i);
  }
  storageBarrier();
  put_chunk(0u, thread);
}
