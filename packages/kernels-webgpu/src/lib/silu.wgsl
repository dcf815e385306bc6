// g / (1 + exp(-g)) of finite g. Exponentials below the smallest normal count as 0.
fn silu(g: f32) -> f32 {
  if (g <= -87.0) {
    return 0.0;
  }
  return g / (1.0 + exp(-g));
}
