/**
 * Putting a shader together from the .wgsl files: pieces in order, lines chosen by `// #if flag`, `// #else`, `// #end`,
 * and every `override` with its value as a `const`: not all compilers take an override where an array's size is one.
 */
import { shaders } from "./embedded/shaders.js";

/** The text of a module. Language extensions that the flags need come first, as WGSL wants it. */
export function compose(pieces: readonly string[], flags: ReadonlySet<string>, constants: Readonly<Record<string, number>> = {}): string {
  const enables = [...(flags.has("shader_f16") ? ["enable f16;"] : []), ...(flags.has("subgroups") ? ["enable subgroups;"] : [])];
  const text = pieces.map((piece) => chosen(piece, flags)).join("\n");
  const fixed = text.replaceAll(/^override (\w+): u32 = (\w+);/gm, (_, name: string, usual: string) => {
    const value = constants[name];
    return `const ${name}: u32 = ${value === undefined ? usual : `${value}u`};`;
  });
  return [...enables, fixed].join("\n");
}

function chosen(piece: string, flags: ReadonlySet<string>): string {
  const text = shaders[piece];
  if (text === undefined) throw new Error(`webgpu: there is no ${piece}.wgsl; run npm run build`);
  /** Whether each open `#if` lets its lines through. */
  const open: boolean[] = [];
  const out: string[] = [];
  for (const line of text.split("\n")) {
    const directive = /^\s*\/\/ #(if|else|end)\s*(\w*)/.exec(line);
    if (directive?.[1] === "if") open.push(flags.has(directive[2] as string));
    else if (directive?.[1] === "else") open.push(!open.pop());
    else if (directive?.[1] === "end") open.pop();
    else if (open.every(Boolean)) out.push(line);
  }
  return out.join("\n");
}
