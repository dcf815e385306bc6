// What this device reaches: reading a buffer once, and multiply-adds in registers.
override workgroup_threads: u32 = 128u;
@group(0) @binding(0) var<storage, read> source: array<vec4f>;
@group(0) @binding(1) var<storage, read_write> sums: array<f32>;

@compute @workgroup_size(workgroup_threads)
fn read_all(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  var sum = vec4f();
  for (var i = id.x; i < arrayLength(&source); i += groups.x * workgroup_threads) {
    sum += source[i];
  }
  sums[id.x] = sum.x + sum.y + sum.z + sum.w;
}

// 4 x 8 accumulators a thread, 256 rounds: 16384 operations.
@compute @workgroup_size(workgroup_threads)
fn multiply_add(@builtin(global_invocation_id) id: vec3u) {
  var a = vec4f(f32(id.x));
  var b = a + 1.0;
  var c = a + 2.0;
  var d = a + 3.0;
  var e = a + 4.0;
  var f = a + 5.0;
  var g = a + 6.0;
  var h = a + 7.0;
  let factor = vec4f(source[0].x);
  for (var i = 0u; i < 256u; i++) {
    a = fma(a, factor, factor);
    b = fma(b, factor, factor);
    c = fma(c, factor, factor);
    d = fma(d, factor, factor);
    e = fma(e, factor, factor);
    f = fma(f, factor, factor);
    g = fma(g, factor, factor);
    h = fma(h, factor, factor);
  }
  let sum = a + b + c + d + e + f + g + h;
  sums[id.x] = sum.x + sum.y + sum.z + sum.w;
}
