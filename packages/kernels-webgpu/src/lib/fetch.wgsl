// One word of a tensor, for messages about it: entry[0] is its index, entry[1] becomes its value.
@group(0) @binding(0) var<storage, read> source: array<u32>;
@group(0) @binding(1) var<storage, read_write> entry: array<u32>;

@compute @workgroup_size(1)
fn fetch() {
  entry[1] = source[entry[0]];
}
