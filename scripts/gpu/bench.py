"""Hotset's kernels beside PyTorch on the same data, on one machine in one run. Times count only where answers agree."""
import json
import math
import os
import sys
import tempfile
import time

import machine
from lines import run_lines

SIZES = {"f32": 4, "f16": 2, "bf16": 2, "i8": 1}
# Data is cycled through in copies of so many bytes together, so that caches of a GPU do not hold it.
ROTATED = 192 << 20
# Errors that a sample, compared with sums in f64 in Node, may have.
SAMPLE = {"decode": 1e-3, "scan": 1e-5}


def cases(tiny):
    # A prime, so that rows of the pattern that follow one another differ for as many rows.
    period = 8191 if tiny else 16777213
    contexts, layouts, batches = ((64,), (16, 0), (1, 2)) if tiny else ((16384, 32768), (16, 0), (1, 8))
    found = []
    for batch in reversed(batches):
        for context in contexts:
            for page in layouts:
                for dtype in ("f16", "bf16", "i8", "f32"):
                    layout = f"pages{page}" if page else "onepiece"
                    shape = {"batch": batch, "queryHeads": 8 if tiny else 32, "kvHeads": 2 if tiny else 8, "headDim": 32 if tiny else 128, "context": context, "pageSize": page or context}
                    found.append({"kind": "decode", "name": f"decode-{dtype}-b{batch}-c{context}-{layout}", "dtype": dtype, **shape})
    one, many, dim = (512, 256, 32) if tiny else (10_000_000, 1_000_000, 128)
    for count, batch, kinds in ((one, 1, ("f16", "f32", "i8")), (many, 8 if tiny else 64, ("f16", "bf16", "f32", "i8")), (many, 9 if tiny else 1024, ("f16", "bf16", "f32", "i8"))):
        for dtype in kinds:
            found.append({"kind": "scan", "name": f"scan-{dtype}-n{count}-q{batch}", "dtype": dtype, "count": count, "dim": dim, "batch": batch, "k": 10})
    for case in found:
        case.update(period=period, tiny=tiny, **cost(case))
        case["copies"] = 2 if tiny else max(1, min(4, math.ceil(ROTATED / case["bytes"])))
    # By dtype, so that one pattern at a time is made.
    return sorted(found, key=lambda case: ("f16", "bf16", "i8", "f32").index(case["dtype"]))


def cost(case):
    """The least that must be read, and the products and sums."""
    size = SIZES[case["dtype"]]
    if case["kind"] == "decode":
        tokens = case["batch"] * case["context"]
        slots = tokens * case["kvHeads"]
        return {"bytes": slots * 2 * (case["headDim"] * size + (4 if case["dtype"] == "i8" else 0)), "flops": 4 * tokens * case["queryHeads"] * case["headDim"]}
    scales = 4 * case["count"] if case["dtype"] == "i8" else 0
    return {"bytes": case["count"] * case["dim"] * size + scales, "flops": 2 * case["batch"] * case["count"] * case["dim"]}


def run(check, result):
    given = {"seconds": 0.01 if check.tiny else 0.3, "cases": cases(check.tiny)}
    result["cases"] = given["cases"]
    result["hotset"], result["torch"], result["limits"] = {}, {}, {}
    began, whole = time.monotonic(), check.deadline - time.monotonic()
    with tempfile.TemporaryDirectory(prefix="hotset-gpu-bench-") as folder:
        listed = os.path.join(folder, "cases.json")
        with open(listed, "w") as file:
            json.dump(given, file)
        names = []
        for backend, share in (("cuda", 0.35), ("webgpu", 0.6)):
            command = [check.node, check.script("bench.mjs"), backend, listed, folder] + (["--emulated"] if check.emulated else [])
            if rounds(check, result, backend, command, result["hotset"].setdefault(backend, {}), began + share * whole):
                names.append(backend)
        peer = [sys.executable, check.script("torch_peer.py"), listed, folder, "--backends", ",".join(names)]
        peer += ["--device", "cpu"] if check.emulated else []
        if not names:
            pass
        elif machine.torch(check) is None:
            result["skipped"] += 1
            result["notes"].append("no torch: answers are compared by samples only")
        else:
            rounds(check, result, "torch", peer, result["torch"], check.deadline)
    judge(result)
    check.save()


def rounds(check, result, who, command, found, deadline):
    """All cases, going on after one that ends the process. False where there is no such device."""
    state = {"begun": None, "last": -1, "missing": None}

    def hear(line):
        if "bench" in line:
            result["limits"].setdefault(who, {**line["bench"], **(line.get("limits") or {})})
        elif "begin" in line:
            state["begun"] = (line["begin"], line["name"])
        elif "end" in line:
            found[line["name"]] = line
            state["begun"], state["last"] = None, line["end"]
            judge(result)
            check.save()
        elif "missing" in line:
            state["missing"] = line["missing"]

    for _ in range(8):
        why, said = run_lines(command + ["--start", str(state["last"] + 1)], hear, 100, deadline)
        if state["missing"] is not None:
            result["skipped"] += 1
            result["notes"].append(f"{who}: {state['missing']}")
            return False
        if why == "ended":
            return True
        if why == "time":
            result["notes"].append(f"{who}: the time ran out after {len(found)} cases")
            return True
        if state["begun"]:
            number, name = state["begun"]
            found[name] = {"name": name, "error": f"the process ended with {why}: {said[-300:]}"}
            state["begun"], state["last"] = None, number
        elif why != "status 3":
            result["failed"] += 1
            result["notes"].append(f"{who}: {why}: {said[-300:]}")
            return bool(found)
    result["notes"].append(f"{who}: given up after 8 starts")
    return True


def judge(result):
    """Rows of the table, and the counts, from what is there."""
    result["rows"] = []
    other = {key: result.get(f"other_{key}", result[key]) for key in ("passed", "failed", "skipped")}
    for key, value in other.items():
        result[f"other_{key}"] = value
    rows = [row for case in result["cases"] for backend in result["hotset"] if (row := row_of(result, case, backend))]
    result["rows"] = rows
    for key in other:
        result[key] = other[key] + sum(row["outcome"] == key for row in rows)


def row_of(result, case, backend):
    ran = result["hotset"][backend].get(case["name"])
    if ran is None:
        return None
    row = {"case": case["name"], "backend": backend, "outcome": "failed"}
    if ran.get("error"):
        # A device that is too small, or has no kernel for it, is no mistake.
        return {**row, "check": ran["error"], "outcome": "skipped" if ran.get("code") in ("memory", "unsupported") else "failed"}
    # The clock of one run also has the launch in it, which runs that are queued hide.
    us = min(ran["us"], ran["queuedUs"])
    row.update(kernel=ran["kernel"], us=us, deviceUs=ran["us"], queuedUs=ran["queuedUs"], **rates(result, case, backend, us))
    peer = result["torch"].get(case["name"], {})
    compared = peer.get("checks", {}).get(backend)
    sample = ran["sampleError"]
    fits = sample is not None and sample <= SAMPLE[case["kind"]]
    if not fits:
        row["check"] = f"wrong: a sample's error is {sample}"
    elif compared is None:
        row.update(check=f"sample: {sample:.1e}" + (f"; torch: {peer['error'][:80]}" if peer.get("error") else ""), outcome="passed")
    else:
        row.update(check=compared["says"] if compared["ok"] else f"wrong: {compared['says']}", outcome="passed" if compared["ok"] else "failed")
    if row["outcome"] == "passed" and peer.get("ways"):
        best = peer["ways"][0]
        row.update(torch=f"{best['way']} ({peer['dtype']})", torchUs=best["us"], ratio=best["us"] / us, torchError=best["error"])
    return row


def rates(result, case, backend, us):
    """GB/s, TFLOP/s, and the share of the nearer limit that was measured in this run."""
    torch, own = result["limits"].get("torch", {}), result["limits"].get(backend, {})
    reads = [value for value in (torch.get("copyGBs"), torch.get("sumGBs"), *(found.get("readGBs") for found in result["limits"].values())) if isinstance(value, (int, float))]
    peak = torch.get("f32Tflops" if case["dtype"] == "f32" else "f16Tflops") or (own["maddGflops"] / 1e3 if isinstance(own.get("maddGflops"), (int, float)) else None)
    seconds = us * 1e-6
    found = {"gbs": case["bytes"] / seconds / 1e9, "tflops": case["flops"] / seconds / 1e12}
    memory = case["bytes"] / 1e9 / max(reads) if reads else 0
    work = case["flops"] / 1e12 / peak if peak else 0
    return {**found, "bound": "memory" if memory >= work else "arithmetic", "share": max(memory, work) / seconds}
