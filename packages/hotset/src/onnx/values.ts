/** Reading the attributes of a node. */
import { HotsetError, ShapeError } from "@hotset/core";
import type { Attribute } from "./proto.js";

/** An attribute that is a number, or its default. */
export function option(attributes: Readonly<Record<string, Attribute>>, name: string, standard: number): number {
  const value = attributes[name];
  if (value === undefined) return standard;
  if (typeof value !== "number" || !Number.isFinite(value))
    throw new HotsetError("argument", { where: `attribute ${name}`, expected: "a number", received: JSON.stringify(value) });
  return value;
}

export const shapeError = (where: string, expected: string, received: string): ShapeError => new ShapeError({ where, expected, received });
