"""compute-sanitizer over a spread of the case pack, an op a process, so that a limit of time costs only what is left."""
import json
import os
import re
import time

from lines import run_plain
from machine import tool

TOOLS = ("memcheck", "synccheck", "racecheck", "initcheck")
SECONDS = 150


def run(check, result):
    sanitizer = tool("compute-sanitizer")
    if sanitizer is None or check.emulated:
        result["skipped"] += 1
        result["notes"].append("no compute-sanitizer" if sanitizer is None else "compute-sanitizer is left out of the emulation")
        return
    runner, pack = os.path.join(check.kit, "bin", "hotset_cuda_runner"), os.path.join(check.kit, "packs", "spread.pack")
    with open(os.path.join(check.kit, "support.json")) as file:
        ops = sorted({row["op"] for row in json.load(file) if row["target"] == "cuda" and "kernels" in row})
    result["runs"] = []
    for name in TOOLS:
        for op in ops:
            began = time.monotonic()
            if began > check.deadline - 5:
                result["skipped"] += 1
                result["notes"].append(f"{name}, {op}: no time was left")
                continue
            extra = ["--leak-check", "full"] if name == "memcheck" else []
            command = [sanitizer, "--tool", name, *extra, "--error-exitcode", "99", runner, pack, "--only", f"{op} |"]
            status, said = run_plain(command, min(check.deadline, began + SECONDS))
            ran = next((line for line in said.splitlines() if re.match(r"cuda-\S+: \d+ passed", line)), None)
            found = re.search(r"SUMMARY: [1-9]\d* (error|hazard)", said)
            outcome = "skipped" if status is None and not found else "passed" if status == 0 and ran and not found else "failed"
            result[outcome] += 1
            summary = [line for line in said.splitlines() if "SUMMARY" in line]
            result["runs"].append({"tool": name, "op": op, "outcome": outcome, "seconds": round(time.monotonic() - began, 1), "ran": ran, "summary": summary})
            if outcome == "skipped":
                result["notes"].append(f"{name}, {op}: not done in {SECONDS} s")
            if outcome == "failed":
                wrong = [line for line in said.splitlines() if line.startswith(("=========", "FAILED"))]
                result["notes"].append(f"{name}, {op}: status {status}: {(summary or wrong or said.splitlines() or ['nothing was said'])[-1][:300]}")
                result["runs"][-1]["said"] = (wrong or said.splitlines())[:60]
            check.save()
