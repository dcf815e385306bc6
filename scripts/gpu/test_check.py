"""What gpu-check does when things go wrong: a kit whose `node` is a script that dies, hangs, or loses its device."""
import json
import os
import stat
import subprocess
import sys
import tempfile
import textwrap
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True
import bench  # noqa: E402
import conformance  # noqa: E402

# Says what conformance.mjs and bench.mjs would; what goes wrong, and at which item, comes with the environment.
NODE = """\
#!{python}
import json, os, signal, sys, time
def say(**line): print(json.dumps(line), flush=True)
if sys.argv[1].endswith("pack.mjs"): open(sys.argv[2], "w"), sys.exit(0)
if "--version" in sys.argv: print("v20.0.0"), sys.exit(0)
wrong, at = os.environ.get("WRONG", "").partition(":")[::2]
target = sys.argv[2]
start = int(sys.argv[sys.argv.index("--start") + 1])
if wrong == "missing": say(missing="nothing here"), sys.exit(4)
if sys.argv[1].endswith("bench.mjs"):
    names = [case["name"] for case in json.load(open(sys.argv[3]))["cases"]]
    say(bench=dict(name="a device", target="x", features=[], cases=len(names)), limits=dict(readGBs=100, maddGflops="no"))
else:
    names = ["op/one | rows=f32 | case %d" % i for i in range(3)] + ["op/two | rows=f32 | case 0"]
    rows = [dict(op=op, variant="rows=f32", target=target, reason="no case ran") for op in ("op/one", "op/two")]
    say(suite=dict(name="a device", features=[], target=target, items=len(names), left=0, spread=False), rows=rows)
for i in range(start, len(names)):
    say(begin=i, name=names[i])
    if str(i) == at and wrong == "die": os.kill(os.getpid(), signal.SIGSEGV)
    if str(i) == at and wrong == "hang": time.sleep(60)
    error = dict(error="wrong bits") if str(i) == at and wrong == "fail" else {{}}
    if str(i) == at and wrong == "small": error = dict(error="none left", code="memory")
    bench = dict(kernel="k", us=10.0, p95Us=11.0, runs=5, queuedUs=12.0, bytes=1, flops=1, sampleError=1.0 if str(i) == at and wrong == "off" else 1e-7)
    extra = bench if sys.argv[1].endswith("bench.mjs") else dict(key=names[i].rpartition(" | ")[0], ms=1, kernels=["k"])
    say(end=i, name=names[i], **extra, **error)
    if str(i) == at and wrong == "lose": say(lost="an illegal address"), sys.exit(3)
say(done=True, claims=[])
"""


class Fake(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.kit = self.folder.name
        os.makedirs(os.path.join(self.kit, "bin"))
        os.makedirs(os.path.join(self.kit, "packs"))
        os.makedirs(os.path.join(self.kit, "scripts"))
        os.symlink(HERE, os.path.join(self.kit, "scripts", "gpu"))
        self.write("bin/node", NODE.format(python=sys.executable))
        self.write("bin/hotset_cuda_runner", "#!/bin/sh\necho 'cuda-sm90: 3 passed, 0 failed'\n")
        about = {"hotset": "0", "commit": "x", "made": "x", "node": "20", "emulated": False, "targets": "x"}
        self.write("kit.json", json.dumps(about))
        os.symlink(os.path.join(HERE, "..", "gpu-check"), os.path.join(self.kit, "scripts", "gpu-check"))

    def tearDown(self):
        self.folder.cleanup()

    def write(self, name, text):
        path = os.path.join(self.kit, name)
        with open(path, "w") as file:
            file.write(textwrap.dedent(text))
        os.chmod(path, os.stat(path).st_mode | stat.S_IXUSR)

    def sanitizer(self, summary, status):
        self.write("support.json", json.dumps([{"op": "op/one", "target": "cuda", "kernels": ["k"]}, {"op": "op/two", "target": "cuda", "reason": "none"}]))
        self.write("bin/compute-sanitizer", f"#!/bin/sh\necho 'cuda-sm90: 3 passed, 0 failed'\necho '========= {summary}'\nexit {status}\n")
        return self.check("sanitizer", "", path=os.path.join(self.kit, "bin"))

    def check(self, only, wrong="", *arguments, path=None):
        """(the results, the last line, the status)."""
        out = os.path.join(self.kit, "out")
        # From outside of the repository, so that the script takes the kit that it lies in.
        script = "import runpy, sys; sys.argv = sys.argv[1:]; m = runpy.run_path(sys.argv[0]); m['conformance'].IDLE = 2; m['main'].__globals__['here'] = sys.argv.pop(); sys.exit(m['main']())"
        command = [sys.executable, "-c", script, os.path.join(HERE, "..", "gpu-check"), "--out", out, "--only", only, "--tiny", *arguments, os.path.join(self.kit, "scripts")]
        ran = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "WRONG": wrong, **({"PATH": path + os.pathsep + os.environ["PATH"]} if path else {})}, timeout=60)
        with open(os.path.join(out, "gpu-check.json")) as file:
            results = json.load(file)
        return results["parts"], ran.stdout.strip().splitlines()[-1], ran.returncode

    def rows(self, parts):
        return {row["op"]: row["passed"] for row in parts["cuda"]["suites"][0]["rows"]}

    def test_all_is_well(self):
        parts, last, status = self.check("cuda")
        self.assertEqual((last, status), ("5 passed, 0 failed, 0 skipped", 0))
        self.assertEqual(self.rows(parts), {"op/one": True, "op/two": True})

    def test_a_failure_spoils_its_variant_alone(self):
        parts, last, status = self.check("cuda", "fail:1")
        self.assertEqual((last, status), ("4 passed, 1 failed, 0 skipped", 1))
        self.assertEqual(self.rows(parts), {"op/one": False, "op/two": True})

    def test_goes_on_after_a_crash_a_hang_and_a_lost_device(self):
        for wrong, said in (("die:1", "signal 11"), ("hang:1", "hung"), ("lose:1", "the device was lost: an illegal address")):
            with self.subTest(wrong):
                parts, last, _ = self.check("cuda", wrong)
                self.assertEqual(last, "4 passed, 1 failed, 0 skipped")
                self.assertIn(said, json.dumps(parts["cuda"]["notes"]))

    def test_no_device_is_a_skip(self):
        parts, last, status = self.check("cuda", "missing")
        self.assertEqual((last, status), ("0 passed, 0 failed, 1 skipped", 1))
        self.assertIn("nothing here", parts["cuda"]["notes"][0])

    def test_a_wrong_answer_has_no_time(self):
        parts, _, status = self.check("bench", "off:2")
        part = parts["bench"]
        wrong = [row for row in part["rows"] if row["outcome"] == "failed"]
        self.assertEqual((len(wrong), status), (2, 1))
        self.assertTrue(all("sample" in row["check"] and "ratio" not in row for row in wrong))
        self.assertEqual(part["passed"], len(part["rows"]) - 2)

    def test_what_does_not_fit_is_skipped_and_what_breaks_is_not(self):
        for wrong, outcome in (("small:2", "skipped"), ("fail:2", "failed"), ("die:2", "failed")):
            with self.subTest(wrong):
                part = self.check("bench", wrong)[0]["bench"]
                self.assertEqual([row["outcome"] for row in part["rows"] if row["outcome"] != "passed"], [outcome] * 2)
                self.assertEqual(len(part["rows"]), 2 * len(part["cases"]))

    def test_the_sanitizer_runs_every_tool_on_every_op(self):
        parts, last, status = self.sanitizer("ERROR SUMMARY: 0 errors", 0)
        self.assertEqual((last, status), ("4 passed, 0 failed, 0 skipped", 0))
        self.assertEqual({(run["tool"], run["op"]) for run in parts["sanitizer"]["runs"]}, {(tool, "op/one") for tool in ("memcheck", "racecheck", "initcheck", "synccheck")})

    def test_what_the_sanitizer_finds_is_a_failure_whatever_the_status(self):
        for summary, status in (("ERROR SUMMARY: 2 errors", 99), ("RACECHECK SUMMARY: 1 hazard displayed (1 error, 0 warnings)", 0)):
            with self.subTest(summary):
                self.assertEqual(self.sanitizer(summary, status)[1], "0 passed, 4 failed, 0 skipped")

    def test_results_of_two_runs_are_one(self):
        self.check("cuda")
        parts, last, _ = self.check("native", "missing", "--merge", os.path.join(self.kit, "out"))
        self.assertEqual(sorted(parts), ["cuda", "native"])
        self.assertEqual(last, "5 passed, 0 failed, 3 skipped")

    def test_a_part_that_breaks_is_a_failure(self):
        os.remove(os.path.join(self.kit, "bin", "hotset_cuda_runner"))
        parts, last, status = self.check("cuda,native", "")
        self.assertEqual((parts["cuda"]["failed"], status), (1, 1))
        self.assertIn("FileNotFoundError", parts["cuda"]["notes"][-1])
        self.assertIn("native", parts)


class Cases(unittest.TestCase):
    def test_every_shape_has_a_name_and_its_bytes(self):
        cases = bench.cases(False)
        self.assertEqual(len({case["name"] for case in cases}), len(cases))
        whole = next(case for case in cases if case["name"] == "decode-f16-b8-c32768-pages16")
        self.assertEqual(whole["bytes"], 8 * 32768 * 8 * 2 * 128 * 2)
        self.assertEqual(next(case for case in cases if case["name"] == "scan-i8-n10000000-q1")["bytes"], 10_000_000 * 132)

    def test_rows_of_a_suite_take_the_kernels_of_all_processes(self):
        state = {"rows": {"a | b": {"op": "a", "variant": "b", "reason": "no case ran"}}, "ended": {}, "begun": None}
        for kernels in (["x"], ["y"]):
            conformance.hear(state, {"end": 0, "name": "a | b | c", "key": "a | b", "kernels": kernels})
        self.assertEqual(state["rows"]["a | b"], {"op": "a", "variant": "b", "kernels": ["x", "y"]})


if __name__ == "__main__":
    unittest.main()
