"""gpu-check.txt: what was run, as markdown that docs/gpu-results.md can take as it is."""


def table(results):
    parts, kit = results["parts"], results["kit"]
    lines = [f"## {results['date']}, {device_of(parts)}", ""]
    lines.append(f"Kit: hotset {kit['hotset']} at {kit['commit']}, Node {kit['node']}, CUDA code for {kit['targets']}.")
    if kit["emulated"]:
        lines.append("**The CUDA kernels ran in the emulation, on the CPU: a trial of this script, not a result.**")
    if results["tiny"]:
        lines.append("**Tiny sizes: a trial of this script, not a result.**")
    lines += ["", "| part | passed | failed | skipped | seconds |", "| --- | --- | --- | --- | --- |"]
    for name, part in parts.items():
        lines.append(f"| {name} | {part['passed']} | {part['failed']} | {part['skipped']} | {part.get('seconds', 'running')} |")
    lines += suites(parts) + sanitizer(parts) + bench(parts)
    notes = [f"- {name}: {cell(note)}" for name, part in parts.items() for note in part["notes"]]
    if notes:
        lines += ["", "Notes:", ""] + notes
    return "\n".join(lines) + "\n"


def device_of(parts):
    device = parts.get("device", {})
    gpus = device.get("gpus")
    if not gpus:
        return f"no GPU, {device.get('processor', 'unknown processor')}"
    torch = device.get("torch")
    return f"{gpus[0]['name']}, driver {gpus[0]['driver_version']}, torch {torch['version'] if isinstance(torch, dict) else torch}"


def suites(parts):
    rows = [(suite, part) for name, part in parts.items() for suite in part.get("suites", [])]
    if not rows:
        return []
    lines = ["", "| conformance | device | items | passed | variants with kernels |", "| --- | --- | --- | --- | --- |"]
    for suite, _ in rows:
        kernels = sum("kernels" in row for row in suite["rows"])
        lines.append(f"| {suite['target']} | {suite['device']} | {suite['items']} | {suite['passed']} | {kernels} of {len(suite['rows'])} |")
    lines += [f"\n{said}" for part in parts.values() for said in part.get("packs", [])]
    return lines


def sanitizer(parts):
    runs = parts.get("sanitizer", {}).get("runs")
    if not runs:
        return []
    lines = ["", "| compute-sanitizer | op | outcome | ran | seconds |", "| --- | --- | --- | --- | --- |"]
    return lines + [f"| {run['tool']} | {run['op']} | {run['outcome']} | {cell(run['ran'] or '')} | {run['seconds']} |" for run in runs]


def bench(parts):
    part = parts.get("bench", {})
    if not part.get("rows"):
        return []
    lines = [""]
    for who, limit in part["limits"].items():
        shown = ", ".join(f"{name} {value:.4g}" for name, value in limit.items() if name != "cases" and isinstance(value, (int, float)))
        lines.append(f"Measured limits, {who} ({limit['name']}): {shown}.")
    lines += ["", "| case | Hotset | ms | rate | of the limit | torch | ms | torch / Hotset | check |", "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in part["rows"]:
        name = f"{row['backend']} {row.get('kernel', '')}".strip()
        if row["outcome"] != "passed":
            lines.append(f"| {row['case']} | {name} | | | | | | | {cell(row['check'])} |")
            continue
        rate = f"{row['gbs']:.0f} GB/s" if row["bound"] == "memory" else f"{row['tflops']:.1f} TFLOP/s"
        torch = f"{row['torch']} | {row['torchUs'] / 1e3:.3f} | {row['ratio']:.2f}" if "torch" in row else "| |"
        lines.append(f"| {row['case']} | {name} | {row['us'] / 1e3:.3f} | {rate} | {row['share']:.0%} | {torch} | {cell(row['check'])} |")
    refused = sorted({cell(text) for found in part["torch"].values() for text in found.get("refused", [])})
    if refused:
        lines += ["", "Ways of torch that did not run or were off:", ""] + [f"- {text}" for text in refused[:20]]
    return lines


def cell(text):
    return " ".join(str(text).split()).replace("|", "\\|")[:300]
