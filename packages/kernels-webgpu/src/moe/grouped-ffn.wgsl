// moe/grouped-ffn: out[i] = W_down (silu(W_gate x) * (W_up x)) for the rows of each expert.
// Small passes check the indices, keep the first of rows that stand twice, and clear what nothing computes. Then 16 threads take a
// row of weights and up to 4 rows of one expert: each weight is read once for them and widened to f32; gate and up go
// together. Sums are f32 of a thread's share, added in the order of the threads: the same bits alone or among others.
// Bound by the bandwidth of the weights up to 4 rows an expert; beyond, each 4 rows read them again.
override workgroup_threads: u32 = 128u;
const sharing: u32 = 16u;
const tile_rows: u32 = workgroup_threads / sharing;
const part_rows: u32 = 4u;
const nobody: u32 = 0xffffffffu;

struct Uniforms {
  params: MoeGroupedFfnParams,
}

@group(0) @binding(0) var<uniform> uniforms: Uniforms;

// Behind the faults: the first row of each assignment; of each row its assignment; of each block its expert's slot.
const faults_words: u32 = 64u;
fn owners_at() -> u32 {
  return faults_words;
}
fn rows_at() -> u32 {
  return faults_words + uniforms.params.tokens * uniforms.params.top_k;
}
fn slots_at() -> u32 {
  return rows_at() + uniforms.params.capacity;
}
fn blocks() -> u32 {
  return (uniforms.params.capacity + uniforms.params.block_size - 1u) / uniforms.params.block_size;
}

// #if checks
@group(0) @binding(1) var<storage, read> sorted: array<u32>;
@group(0) @binding(2) var<storage, read> block_expert: array<u32>;
@group(0) @binding(3) var<storage, read> expert_slot: array<u32>;
@group(0) @binding(4) var<storage, read_write> work: array<atomic<u32>>;

// An index, or nobody; -1 is nobody as it stands.
fn checked(value: u32, below: u32, port: u32, index: u32) -> u32 {
  if (value < below) {
    return value;
  }
  if (value != nobody) {
    atomicMax(&work[port], ~index);
  }
  return nobody;
}

fn invocation(group: vec3u, groups: vec3u, thread: u32) -> u32 {
  return (group.y * groups.x + group.x) * workgroup_threads + thread;
}

@compute @workgroup_size(workgroup_threads)
fn begin(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = invocation(group, groups, thread);
  if (i < uniforms.params.tokens * uniforms.params.top_k) {
    atomicStore(&work[owners_at() + i], nobody);
  }
}

@compute @workgroup_size(workgroup_threads)
fn claim(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = invocation(group, groups, thread);
  if (i < uniforms.params.experts) {
    checked(expert_slot[i], uniforms.params.slots, 2u, i);
  }
  if (i < blocks()) {
    let expert = checked(block_expert[i], uniforms.params.experts, 1u, i);
    var slot = nobody;
    if (expert != nobody && expert_slot[expert] < uniforms.params.slots) {
      slot = expert_slot[expert];
    }
    atomicStore(&work[slots_at() + i], slot);
  }
  if (i < uniforms.params.capacity) {
    let assignment = checked(sorted[i], uniforms.params.tokens * uniforms.params.top_k, 0u, i);
    atomicStore(&work[rows_at() + i], assignment);
    if (assignment != nobody) {
      atomicMin(&work[owners_at() + assignment], i);
    }
  }
}

@compute @workgroup_size(workgroup_threads)
fn settle(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let i = invocation(group, groups, thread);
  if (i >= uniforms.params.capacity) {
    return;
  }
  let assignment = atomicLoad(&work[rows_at() + i]);
  if (assignment != nobody && atomicLoad(&work[owners_at() + assignment]) != i) {
    atomicMax(&work[0], ~i);
    atomicStore(&work[rows_at() + i], nobody);
  }
}
// #else
@group(0) @binding(1) var<storage, read> work: array<u32>;

// Up to 4 rows of one block, from row `first` on: where they are, or nobody.
fn rows_from(first: u32, end: u32) -> vec4u {
  var found = vec4u(nobody);
  for (var r = 0u; r < part_rows; r++) {
    if (first + r < end) {
      found[r] = work[rows_at() + first + r];
    }
  }
  return found;
}

// #if clears
@group(0) @binding(2) var<storage, read_write> out: array<f32>;

@compute @workgroup_size(workgroup_threads)
fn clear(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
  let column = group.x * workgroup_threads + thread;
  let width = uniforms.params.dim;
  if (column >= width) {
    return;
  }
  for (var i = group.y; i < uniforms.params.tokens * uniforms.params.top_k; i += groups.y) {
    let owner = work[owners_at() + i];
    if (owner == nobody || work[slots_at() + owner / uniforms.params.block_size] == nobody) {
      out[i * width + column] = 0.0;
    }
  }
}
// #else
// #if goes_up
@group(0) @binding(2) var<storage, read> x: array<f32>;
@group(0) @binding(3) var<storage, read> gate: array<Word>;
@group(0) @binding(4) var<storage, read> up_rows: array<Word>;
@group(0) @binding(5) var<storage, read_write> inside: array<f32>;
// #else
@group(0) @binding(2) var<storage, read> inside: array<f32>;
@group(0) @binding(3) var<storage, read> gate: array<Word>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
// #end

// Element i of a row of weights, rows of `width` elements.
fn gate_at(row: u32, width: u32, i: u32) -> f32 {
// #if values_q8_0
  let place = q8_place(row, width, i);
  return q8_value(gate[place.scale_word], gate[place.word], place);
// #else
  let at = row * width + i;
  return value_of(gate[at / values_per_word], at % values_per_word);
// #end
}
// #if goes_up
fn up_at(row: u32, width: u32, i: u32) -> f32 {
// #if values_q8_0
  let place = q8_place(row, width, i);
  return q8_value(up_rows[place.scale_word], up_rows[place.word], place);
// #else
  let at = row * width + i;
  return value_of(up_rows[at / values_per_word], at % values_per_word);
// #end
}
// #end

var<workgroup> sums: array<vec4f, workgroup_threads>;
// #if goes_up
var<workgroup> up_sums: array<vec4f, workgroup_threads>;
// #end

struct Part {
  slot: u32,
  first: u32,
  rows: vec4u,
}

fn part_of(index: u32) -> Part {
  let size = uniforms.params.block_size;
  let parts = (size + part_rows - 1u) / part_rows;
  let block = index / parts;
  let first = block * size + index % parts * part_rows;
  let end = min((block + 1u) * size, uniforms.params.capacity);
  return Part(work[slots_at() + block], first, rows_from(first, end));
}

@compute @workgroup_size(workgroup_threads)
fn multiply(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) thread: u32) {
// #if goes_up
  let width = uniforms.params.dim;
  let height = uniforms.params.hidden;
// #else
  let width = uniforms.params.hidden;
  let height = uniforms.params.dim;
// #end
  let parts = blocks() * ((uniforms.params.block_size + part_rows - 1u) / part_rows);
  let row = group.x * tile_rows + thread / sharing;
  for (var index = group.y; index < parts; index += groups.y) {
    let part = part_of(index);
    var sum = vec4f();
    var other = vec4f();
    let used = part.slot != nobody && any(part.rows != vec4u(nobody));
    if (used && row < height) {
      var starts = vec4u();
      for (var r = 0u; r < part_rows; r++) {
// #if goes_up
        starts[r] = select(part.rows[r] / uniforms.params.top_k * width, 0u, part.rows[r] == nobody);
// #else
        starts[r] = select((part.first + r) * width, 0u, part.rows[r] == nobody);
// #end
      }
      for (var i = thread % sharing; i < width; i += sharing) {
// #if goes_up
        let y = vec4f(x[starts.x + i], x[starts.y + i], x[starts.z + i], x[starts.w + i]);
        other = fma(vec4f(up_at(part.slot * height + row, width, i)), y, other);
// #else
        let y = vec4f(inside[starts.x + i], inside[starts.y + i], inside[starts.z + i], inside[starts.w + i]);
// #end
        sum = fma(vec4f(gate_at(part.slot * height + row, width, i)), y, sum);
      }
    }
    sums[thread] = sum;
// #if goes_up
    up_sums[thread] = other;
// #end
    workgroupBarrier();
    if (thread % sharing == 0u && used && row < height) {
      for (var i = 1u; i < sharing; i++) {
        sum += sums[thread + i];
// #if goes_up
        other += up_sums[thread + i];
// #end
      }
      for (var r = 0u; r < part_rows; r++) {
        if (part.rows[r] != nobody) {
// #if goes_up
          inside[(part.first + r) * height + row] = silu(sum[r]) * other[r];
// #else
          out[part.rows[r] * height + row] = sum[r];
// #end
        }
      }
    }
    workgroupBarrier();
  }
}
// #end
// #end
