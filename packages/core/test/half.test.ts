import { bf16ToNumber, f16ToNumber, toBf16, toF16, toI8Rows } from "@hotset/core";
import { Random } from "@hotset/core/testing";
import { describe, expect, it } from "vitest";

/** The nearest of all finite binary16 values, ties to the even one: by search, not by arithmetic. */
const finite = Array.from({ length: 0x7c00 }, (_, bits) => f16ToNumber(bits));
function nearestF16(value: number): number {
  const magnitude = Math.abs(value);
  let low = 0;
  let high = finite.length - 1;
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((finite[middle] as number) < magnitude) low = middle + 1;
    else high = middle;
  }
  const above = low;
  const below = Math.max(0, above - 1);
  const [a, b] = [(finite[above] as number) - magnitude, magnitude - (finite[below] as number)];
  const bits = a < b ? above : b < a ? below : above % 2 === 0 ? above : below;
  return value < 0 ? bits | 0x8000 : bits;
}

describe("f16", () => {
  it("keeps every value through numbers and back", () => {
    for (let bits = 0; bits < 65536; bits++) {
      const [back] = toF16([f16ToNumber(bits)]);
      if (Number.isNaN(f16ToNumber(bits))) expect(Number.isNaN(f16ToNumber(back as number))).toBe(true);
      else expect(back).toBe(bits);
    }
  });

  it("rounds to the nearest value, ties to even, subnormals too", () => {
    const random = new Random("f16");
    for (let i = 0; i < 20_000; i++) {
      const value = random.normal() * 2 ** (random.below(50) - 30);
      if (Math.abs(value) >= 65504) continue;
      expect(toF16([value])[0], String(value)).toBe(nearestF16(value));
    }
    for (let bits = 0; bits < 0x7bff; bits++) {
      const middle = (f16ToNumber(bits) + f16ToNumber(bits + 1)) / 2;
      expect(toF16([middle])[0]).toBe(bits % 2 === 0 ? bits : bits + 1);
    }
  });

  it("overflows to infinity from half a step above the largest value", () => {
    expect([...toF16([65519.99, 65520, -65520, 1e30])]).toEqual([0x7bff, 0x7c00, 0xfc00, 0x7c00]);
  });
});

describe("bf16", () => {
  it("keeps every value through numbers and back", () => {
    for (let bits = 0; bits < 65536; bits++) {
      const value = bf16ToNumber(bits);
      if (!Number.isNaN(value)) expect(toBf16([value])[0]).toBe(bits);
    }
    expect(Number.isNaN(bf16ToNumber(toBf16([Number.NaN])[0] as number))).toBe(true);
  });

  it("rounds ties to even", () => {
    expect(toBf16([1 + 2 ** -8])[0]).toBe(toBf16([1])[0]);
    expect(toBf16([1 + 3 * 2 ** -8])[0]).toBe(toBf16([1 + 2 ** -6])[0]);
  });
});

describe("toI8Rows", () => {
  it("is within half a step of each value, and keeps zero rows", () => {
    const random = new Random("i8");
    const values = random.values(20 * 7, () => random.normal());
    values.fill(0, 7, 14);
    const { data, scale } = toI8Rows(values, 7);
    for (const [i, value] of values.entries()) {
      const step = scale[Math.floor(i / 7)] as number;
      expect(Math.abs((data[i] as number) * step - value)).toBeLessThanOrEqual(0.5001 * step);
    }
    expect(scale[1]).toBe(0);
  });
});
