"""The conformance suite on a backend: through Node, item by item, going on after an item that kills or hangs the process;
and the case pack through the runner, without Node."""
import os

from lines import run_lines, run_plain
from machine import gpu_name, processor

# Seconds without a word: the first item waits for all cases to be listed, and for the device.
IDLE = 90
RESTARTS = 12
SHOWN = 40


def cuda(check, result):
    if suite(check, result, "cuda", gpu_name(check)):
        replay(check, result, ["hotset_cuda_runner"], "the case pack without Node")


def native(check, result):
    for isa in ("avx512", "avx2", "sse2"):
        if suite(check, result, f"native-{isa}", processor()):
            replay(check, result, ["hotset_runner", "--isa", isa, "--threads", "4"], f"the case pack without Node, {isa}")


def webgpu(check, result):
    suite(check, result, "webgpu", None)


def suite(check, result, target, device):
    """Adds its counts and rows; false where there is no such device."""
    state = {"name": None, "rows": {}, "ended": {}, "begun": None, "began": None, "missing": None, "lost": None, "claims": None, "items": 0}
    command = [check.node, check.script("conformance.mjs"), target]
    command += ["--emulated"] if check.emulated else []
    command += ["--most", "40"] if check.tiny else []
    start, starts = 0, 0
    deaths = []
    while True:
        starts += 1
        state["begun"] = None
        why, said = run_lines(command + ["--start", str(start)], lambda line: hear(state, line), IDLE, check.deadline)
        if state["missing"] is not None:
            result["skipped"] += 1
            result["notes"].append(f"{target}: {state['missing']}")
            return False
        if why == "ended" or why == "time":
            break
        if state["begun"] is None and not state["lost"]:
            deaths.append(f"{target}: {why} before an item: {said[-300:]}")
            break
        # The item that it was in, or that lost the device, is a failure; go on with the next.
        number, name = state["begun"] if state["begun"] else state["last"]
        reason = f"the device was lost: {state['lost']}" if state["lost"] else f"the process ended with {why}: {said[-300:]}"
        if not state["ended"].get(number, {}).get("error"):
            state["ended"][number] = {"name": name, "key": " | ".join(name.split(" | ")[:2]), "error": reason}
        start = number + 1
        state["lost"] = None
        if starts > RESTARTS:
            deaths.append(f"{target}: ended after {RESTARTS} restarts, at item {start} of {state['items']}")
            break
    add(check, result, target, device, state, why, deaths)
    return True


def hear(state, line):
    if "suite" in line:
        state["items"], state["name"], state["target"] = line["suite"]["items"], line["suite"]["name"], line["suite"]["target"]
        state["suite"] = line["suite"]
        if not state["rows"]:
            state["rows"] = {f"{row['op']} | {row['variant']}": row for row in line["rows"]}
    elif "begin" in line:
        state["begun"] = (line["begin"], line["name"])
    elif "end" in line:
        state["ended"][line["end"]] = line
        state["last"], state["begun"] = state["begun"], None
        row = state["rows"].get(line["key"])
        if row and line.get("kernels"):
            row["kernels"] = sorted({*row.get("kernels", []), *line["kernels"]})
            row.pop("reason", None)
        elif row and line.get("reason") and "kernels" not in row:
            row["reason"] = line["reason"]
    elif "missing" in line:
        state["missing"] = line["missing"]
    elif "lost" in line:
        state["lost"] = line["lost"]
    elif "done" in line:
        state["claims"] = line.get("claims")


def add(check, result, target, device, state, why, deaths):
    ended = state["ended"]
    failures = [line for line in ended.values() if line.get("error")]
    missed = state["items"] - len(ended)
    result["passed"] += len(ended) - len(failures)
    result["failed"] += len(failures) + len(deaths)
    result["skipped"] += missed
    result["notes"] += deaths
    if missed:
        result["notes"].append(f"{target}: {missed} of {state['items']} items did not run ({why})")
    for line in failures[:SHOWN]:
        result["notes"].append(f"{target}: FAILED {line['name']}: {line['error'].splitlines()[0][:400]}")
    for problem in state["claims"] or []:
        result["failed"] += 1
        result["notes"].append(f"{target}: {problem}")
    # A row counts as verified where everything of its variant ran and passed.
    bad = {line["key"] for line in failures}
    whole = not missed and not deaths and not state.get("suite", {}).get("spread")
    rows = [{**row, "passed": whole and key not in bad} for key, row in state["rows"].items()]
    shown = {"target": state.get("target"), "name": state["name"], "device": device or state["name"], "items": state["items"], "passed": len(ended) - len(failures)}
    slowest = sorted(ended.values(), key=lambda line: -line.get("ms", 0))[:5]
    shown["slowest"] = [[line["name"], line.get("ms")] for line in slowest]
    result.setdefault("suites", []).append({**shown, "rows": rows, "failures": [{"name": line["name"], "error": line["error"]} for line in failures]})
    check.save()


def replay(check, result, command, what):
    runner, *arguments = command
    pack = os.path.join(check.kit, "packs", "cases.pack")
    if not os.path.exists(pack):
        status, said = run_plain([check.node, check.script("pack.mjs"), pack, *(["2"] if check.tiny else [])], check.deadline)
        if status != 0:
            result["failed"] += 1
            result["notes"].append(f"the case pack could not be made: status {status}: {said[-300:]}")
            return
    status, said = run_plain([os.path.join(check.kit, "bin", runner), pack, *arguments], check.deadline)
    last = said.strip().splitlines()[-1] if said.strip() else "nothing was said"
    if status == 0:
        result["passed"] += 1
        result.setdefault("packs", []).append(last)
    elif status is None:
        result["skipped"] += 1
        result["notes"].append(f"{what}: the time ran out")
    else:
        result["failed"] += 1
        result["notes"].append(f"{what}: status {status}: {last}")
        result["notes"] += [line for line in said.splitlines() if line.startswith("FAILED")][:SHOWN]
