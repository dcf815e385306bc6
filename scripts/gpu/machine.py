"""What the machine is: its GPU by nvidia-smi, PyTorch, the kit."""
import glob
import json
import os
import shutil
import subprocess
import sys
import time

from lines import run_plain

ASK_TORCH = """
import json, torch
there = torch.cuda.is_available()
print(json.dumps({"version": torch.__version__, "cuda": torch.version.cuda, "device": torch.cuda.get_device_name(0) if there else None}))
"""


def device(check, result):
    fields = ["name", "driver_version", "memory.total", "compute_cap"]
    status, said = run_plain(["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"], check.deadline) if shutil.which("nvidia-smi") else (1, "no nvidia-smi")
    if status == 0:
        result["gpus"] = [dict(zip(fields, (part.strip() for part in line.split(",")))) for line in said.strip().splitlines()]
        result["passed"] += 1
    else:
        result["skipped"] += 1
        result["notes"].append(f"no device: {said.strip().splitlines()[-1] if said.strip() else 'nvidia-smi failed'}")
    result["processor"] = processor()
    result["cores"] = os.cpu_count()
    result["node"] = subprocess.run([check.node, "--version"], capture_output=True, text=True, check=True).stdout.strip()
    result["passed"] += 1
    result["torch"] = torch(check) or "not installed"
    result["python"] = sys.version.split()[0]


def torch(check):
    """Its version, its CUDA and its device; or None."""
    status, said = run_plain([sys.executable, "-c", ASK_TORCH], min(check.deadline, time.monotonic() + 120))
    return json.loads(said.strip().splitlines()[-1]) if status == 0 else None


def tool(name):
    """A tool of the CUDA toolkit: on the path, or where it is usually installed; else None."""
    return shutil.which(name) or next(iter(sorted(glob.glob(f"/usr/local/cuda*/bin/{name}"), reverse=True)), None)


def processor():
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown"


def gpu_name(check):
    """For rows of support.json: the GPU with its driver, as nvidia-smi has them."""
    gpus = check.results["parts"].get("device", {}).get("gpus")
    return f"{gpus[0]['name']}, driver {gpus[0]['driver_version']}" if gpus else None
