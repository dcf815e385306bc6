// model/rms-norm: out = weight x / sqrt(mean(x^2) + epsilon). A workgroup a token: each thread sums the squares of every
// so-manyth component in f32, then the threads' sums are added in pairs, in an order that no device changes.
// The largest magnitude goes along, by its bits: a NaN makes all of the token NaN, an infinity itself NaN and the rest 0.
// Bound by memory: x is read twice, the second time from cache.
override workgroup_threads: u32 = 128u;

struct Uniforms {
  params: ModelRmsNormParams,
  // Of the window bound here.
  tokens: u32,
}

// #if fours
alias Item = vec4u;
alias Value = vec4f;
const item_values: u32 = 4u;
fn sum_of(value: Value) -> f32 {
  return (value.x + value.y) + (value.z + value.w);
}
fn largest_of(bits: Item) -> u32 {
  return max(max(bits.x, bits.y), max(bits.z, bits.w));
}
// #else
alias Item = u32;
alias Value = f32;
const item_values: u32 = 1u;
fn sum_of(value: Value) -> f32 {
  return value;
}
fn largest_of(bits: Item) -> u32 {
  return bits;
}
// #end

@group(0) @binding(0) var<uniform> uniforms: Uniforms;
@group(0) @binding(1) var<storage, read> x: array<Item>;
@group(0) @binding(2) var<storage, read> weight: array<Item>;
@group(0) @binding(3) var<storage, read_write> out: array<Item>;

var<workgroup> sums: array<f32, workgroup_threads>;
var<workgroup> largest: array<u32, workgroup_threads>;

@compute @workgroup_size(workgroup_threads)
fn normalise(
  @builtin(workgroup_id) group: vec3u,
  @builtin(num_workgroups) groups: vec3u,
  @builtin(local_invocation_index) thread: u32,
) {
  let width = uniforms.params.dim / item_values;
  for (var t = group.x; t < uniforms.tokens; t += groups.x) {
    let start = t * width;
    var squares = Value();
    var top = 0u;
    for (var i = thread; i < width; i += workgroup_threads) {
      let item = x[start + i];
      let value = bitcast<Value>(item);
      squares = fma(value, value, squares);
      top = max(top, largest_of(item & Item(0x7fffffffu)));
    }
    // The token before is done with.
    workgroupBarrier();
    sums[thread] = sum_of(squares);
    largest[thread] = top;
    workgroupBarrier();
    for (var half = workgroup_threads / 2u; half > 0u; half /= 2u) {
      if (thread < half) {
        sums[thread] += sums[thread + half];
        largest[thread] = max(largest[thread], largest[thread + half]);
      }
      workgroupBarrier();
    }
    top = largest[0];
    let scale = inverse_root(sums[0] / f32(uniforms.params.dim) + uniforms.params.epsilon);
    for (var i = thread; i < width; i += workgroup_threads) {
      let item = x[start + i];
      let value = bitcast<Item>(bitcast<Value>(weight[i]) * (bitcast<Value>(item) * scale));
      // Beside an infinity: 0 where both factors are finite.
      let beside = max(item & Item(0x7fffffffu), weight[i] & Item(0x7fffffffu)) >= Item(infinity_bits);
      let undone = select(Item(0u), Item(nan_bits), beside);
      out[start + i] = select(select(value, undone, top == infinity_bits), Item(nan_bits), top > infinity_bits);
    }
  }
}
