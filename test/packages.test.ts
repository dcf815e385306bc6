import { execFileSync, spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build as esbuild } from "esbuild";
import { build as vite } from "vite";
import { afterAll, describe, expect, it } from "vitest";
import { installPackages, root } from "./support/installed.js";

const project = installPackages();
afterAll(() => rmSync(project.folder, { recursive: true, force: true }));

const write = (name: string, text: string): string => {
  writeFileSync(join(project.folder, name), text);
  return join(project.folder, name);
};

const program = `
const rows = Float32Array.from({ length: 1000 * 16 }, (_, i) => Math.sin(i));
const result = await search.scan({ queries: rows.subarray(160, 176), rows, dim: 16, k: 3 });
console.log(JSON.stringify({ ids: [...result.ids], backend: result.backend, kernel: result.kernel }));`;

describe("the packed packages, in an empty project without a compiler", () => {
  it("hold what they need and nothing else", () => {
    for (const tarball of project.tarballs) {
      const files = execFileSync("tar", ["tzf", tarball], { encoding: "utf8" }).split("\n").filter(Boolean);
      expect(files).toContain("package/LICENSE");
      expect(files.filter((file) => /\.tsbuildinfo|node_modules|\.test\.|\/build\//.test(file))).toEqual([]);
      const manifest = JSON.parse(execFileSync("tar", ["xzOf", tarball, "package/package.json"], { encoding: "utf8" }));
      expect(manifest.scripts?.install ?? manifest.scripts?.postinstall ?? manifest.scripts?.preinstall).toBeUndefined();
      expect(JSON.stringify(manifest)).not.toContain("workspace:");
      expect(manifest.license).toBe("Apache-2.0");
    }
  });

  it("auto runs the addon", () => {
    write("app.mjs", `import { search } from "hotset";${program}`);
    const { stdout, stderr } = project.run("node", ["app.mjs"]);
    expect(stderr).toBe("");
    expect(JSON.parse(stdout).ids[0]).toBe(10);
    expect(JSON.parse(stdout).backend).toBe("native");
  });

  it("auto runs wasm where there is no addon, and says why", () => {
    const prebuilds = join(project.folder, "node_modules/@hotset/kernels-native/prebuilds");
    const moved = `${prebuilds}-away`;
    execFileSync("mv", [prebuilds, moved]);
    write(
      "plan.mjs",
      `import { findHotset, search } from "hotset"; const h = await findHotset(); const p = h.planSync(search.scan, { batch: 1, count: 1000, dim: 16, k: 3 }, { rows: "f32" }); console.log(JSON.stringify({ backend: p.backend, missing: h.missing }));`,
    );
    const { stdout } = project.run("node", ["plan.mjs"]);
    execFileSync("mv", [moved, prebuilds]);
    const { backend, missing } = JSON.parse(stdout);
    expect(backend).toBe("wasm");
    expect(missing.find(({ id }: { id: string }) => id === "native").reason).toMatch(/what was built for this platform/);
  });

  it("survives a truncated addon and a truncated wasm file", () => {
    const addon = join(project.folder, "node_modules/@hotset/kernels-native/prebuilds");
    const files = [
      join(addon, readdirSync(addon)[0] as string, "hotset.node"),
      ...readdirSync(join(project.folder, "node_modules/@hotset/kernels-wasm/dist"))
        .filter((name) => name.endsWith(".wasm"))
        .map((name) => join(project.folder, "node_modules/@hotset/kernels-wasm/dist", name)),
    ];
    const whole = files.map((file) => readFileSync(file));
    for (const [i, file] of files.entries()) truncateSync(file, (whole[i] as Buffer).length >> 1);
    const { stdout, status } = project.run("node", ["app.mjs"]);
    const doctor = project.run("node", ["node_modules/hotset/bin/hotset.js", "doctor", "--json"]);
    for (const [i, file] of files.entries()) writeFileSync(file, whole[i] as Buffer);
    expect(status).toBe(0);
    expect(JSON.parse(stdout).backend).toBe("js");
    const reasons = JSON.parse(doctor.stdout).backends as { id: string; available: boolean; reason: string | null }[];
    for (const id of ["native", "wasm"])
      expect(reasons.find((backend) => backend.id === id)?.reason).toMatch(
        /expected \d+ bytes but received \d+\. The package is damaged: install it again/,
      );
  });

  it("bring CUDA to those who install it, which says why it does not run here", () => {
    const manifest = JSON.parse(readFileSync(join(project.folder, "node_modules/hotset/package.json"), "utf8"));
    expect({ ...manifest.dependencies, ...manifest.optionalDependencies }).not.toHaveProperty("@hotset/kernels-cuda");
    expect(manifest.peerDependenciesMeta["@hotset/kernels-cuda"]).toEqual({ optional: true });
    const folder = join(project.folder, "node_modules/@hotset/kernels-cuda");
    const reasonOf = () => {
      const { backends } = JSON.parse(project.run("node", ["node_modules/hotset/bin/hotset.js", "doctor", "--json"]).stdout);
      const { available, reason } = backends.find(({ id }: { id: string }) => id === "cuda");
      return available ? "a GPU" : reason;
    };
    const built = existsSync(join(folder, "prebuilds"));
    expect(reasonOf()).toMatch(built ? /no device: cudaError\w+: .*driver|^a GPU$/ : /what was built for this platform/);
    if (built) {
      const file = join(folder, "prebuilds/linux-x64/hotset-cuda.node");
      const whole = readFileSync(file);
      truncateSync(file, whole.length >> 1);
      expect(reasonOf()).toMatch(/expected \d+ bytes but received \d+\. The package is damaged: install it again/);
      writeFileSync(file, whole);
    }
    execFileSync("mv", [folder, `${folder}-away`]);
    expect(reasonOf()).toMatch(/expected to be installed but received it is not\. npm i @hotset\/kernels-cuda/);
    execFileSync("mv", [`${folder}-away`, folder]);
  });

  it("can be required", () => {
    write("app.cjs", `const { search } = require("hotset"); (async () => {${program}})();`);
    expect(JSON.parse(project.run("node", ["--no-warnings", "app.cjs"]).stdout).ids[0]).toBe(10);
  });

  it("brings the command", () => {
    const command = join(project.folder, "node_modules/.bin/hotset");
    expect(existsSync(command)).toBe(true);
    expect(project.run("node", [command, "--version"]).stdout.trim()).toBe(
      JSON.parse(readFileSync(join(root, "packages/hotset/package.json"), "utf8")).version,
    );
  });
});

describe("types in a strict consumer", () => {
  const source = `
import { createHotset, HotsetError, plan, search, type Tensor } from "hotset";
const rows: Float32Array = new Float32Array(64);
const found = await search.scan({ queries: rows.subarray(0, 8), rows, dim: 8, k: 2, metric: "cos" });
const ids: Int32Array = found.ids;
const scores: Float32Array = found.scores;
const p = await plan(search.scan, { batch: 1, count: 8, dim: 8, k: 2 }, { rows: "i8", metric: "l2", filter: true });
const tensor: Tensor<"f32" | "f16" | "bf16" | "i8"> = p.alloc("rows");
const step = p.bind({ queries: rows.subarray(0, 8), rows: new Int8Array(64), rowScale: new Float32Array(8), filter: new Uint32Array(1) });
step.set("count", 4).run().found satisfies Uint32Array;
const hotset = await createHotset();
try { hotset.dispose(); } catch (error) { if (error instanceof HotsetError) console.log(error.code, error.hint); }
// @ts-expect-error a metric that is none
await search.scan({ queries: rows, rows, dim: 8, k: 2, metric: "dot" });
// @ts-expect-error rows of another type
await search.scan({ queries: rows, rows: new Float64Array(8), dim: 8, k: 2 });
// @ts-expect-error an axis that is missing
await plan(search.scan, { batch: 1, count: 8, dim: 8 }, { rows: "f32" });
// @ts-expect-error no dtype for the rows
await plan(search.scan, { batch: 1, count: 8, dim: 8, k: 2 }, {});
// @ts-expect-error an axis that is not live is not settable... and neither is a name that is none
step.set("nothing", 4);
export { ids, scores, tensor };
`;
  for (const [resolution, module] of [
    ["bundler", "ESNext"],
    ["node16", "Node16"],
  ]) {
    it(`resolve and check with moduleResolution ${resolution}`, () => {
      write("consumer.ts", source);
      write(
        "tsconfig.json",
        JSON.stringify({
          compilerOptions: {
            strict: true,
            noUncheckedIndexedAccess: true,
            exactOptionalPropertyTypes: true,
            target: "ES2022",
            lib: ["ES2022", "DOM"],
            module,
            moduleResolution: resolution,
            noEmit: true,
            types: [],
          },
          files: ["consumer.ts"],
        }),
      );
      const { stdout, status } = spawnSync(join(root, "node_modules/.bin/tsc"), ["-p", project.folder], { encoding: "utf8" });
      expect(stdout).toBe("");
      expect(status).toBe(0);
    });
  }
});

describe("bundles for the browser", () => {
  const entry = () => write("page.mjs", `import { findBest } from "./find.mjs"; globalThis.result = findBest();`);
  const find = () =>
    write(
      "find.mjs",
      `import { search } from "hotset"; export async function findBest() { const rows = Float32Array.from({ length: 1000 * 16 }, (_, i) => Math.sin(i)); const { ids, backend } = await search.scan({ queries: rows.subarray(160, 176), rows, dim: 16, k: 3 }); return { ids: [...ids], backend }; }`,
    );
  const result = async (file: string): Promise<{ ids: number[]; backend: string }> => {
    const source = `import(${JSON.stringify(`file://${file}`)}).then(async () => { console.log(JSON.stringify(await globalThis.result)); process.exit(0); })`;
    const { stdout, stderr } = spawnSync(process.execPath, ["-e", source], { encoding: "utf8" });
    if (!stdout) throw new Error(stderr);
    return JSON.parse(stdout);
  };

  it("esbuild: wasm comes along, nothing of Node does", async () => {
    find();
    const outfile = join(project.folder, "esbuild.mjs");
    const { metafile } = await esbuild({
      entryPoints: [entry()],
      bundle: true,
      format: "esm",
      platform: "browser",
      outfile,
      metafile: true,
      logLevel: "silent",
    });
    expect(
      Object.keys(metafile.inputs).filter((path) => /kernels-native|\/node\/|cli-progress|commander|reference.*testing/.test(path)),
    ).toEqual([]);
    expect(await result(outfile)).toEqual({ ids: expect.arrayContaining([10]), backend: "wasm" });
  });

  it("Vite: wasm comes along, nothing of Node does", async () => {
    find();
    await vite({
      root: project.folder,
      logLevel: "silent",
      configFile: false,
      build: { outDir: "vite", minify: true, lib: { entry: entry(), formats: ["es"], fileName: "page" } },
    });
    const [page] = readdirSync(join(project.folder, "vite")).filter((name) => name.startsWith("page"));
    expect(await result(join(project.folder, "vite", page as string))).toEqual({ ids: expect.arrayContaining([10]), backend: "wasm" });
  });
});
