"""PyTorch beside Hotset: the same data, the same cases, a line of JSON each. Every answer of Hotset's (in files) and of
PyTorch's is compared with one computed in f64 here. Only the torch package is needed.

  torch_peer.py <cases.json> <folder> [--start N] [--device cuda|cpu] [--backends cuda,webgpu]
"""
import argparse
import contextlib
import json
import math
import os
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

VALUE_OFFSET, COPY_OFFSET = 1_000_003, 99_991
DTYPES = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16, "i8": torch.int8}
# What torch computes i8 in: it has no such op, so a copy in f16 is made before, outside the time.
COMPUTE = {**DTYPES, "i8": torch.float16}


def say(**values):
    print(json.dumps(values), flush=True)


# ---- Data, as in data.mjs


def hashed(start, length, seed, device):
    mask = 0xFFFFFFFF
    h = (torch.arange(start, start + length, dtype=torch.int64, device=device) + ((seed * 0x9E3779B9) & mask)) & mask
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & mask
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & mask
    return h ^ (h >> 16)


def queries_of(length, size, device):
    return ((hashed(0, length, 2, device) >> 24) - 128).to(torch.float32) / 128 * size


def scales_of(length, offset, device):
    return (1 + (hashed(offset, length, 3, device) >> 22).to(torch.float32) / 1024) / 128


def pattern_of(dtype, period, device):
    h = hashed(0, period, 1, device)
    if dtype == "i8":
        return ((h >> 24) - 128).clamp(min=-127).to(torch.int8)
    return (((h >> 8) - 2**23).to(torch.float32) / 2**23).to(DTYPES[dtype])


def filled(pattern, elements, offset):
    """Element e is pattern[(offset + e) mod period]."""
    out = torch.empty(elements, dtype=pattern.dtype, device=pattern.device)
    done, at = 0, offset % pattern.numel()
    while done < elements:
        length = min(pattern.numel() - at, elements - done)
        out[done : done + length] = pattern[at : at + length]
        done, at = done + length, 0
    return out


def from_file(path, dtype, shape, device):
    """What Hotset wrote, or None where it has not."""
    if not os.path.exists(path):
        return None
    with open(path, "rb") as file:
        return torch.frombuffer(bytearray(file.read()), dtype=dtype).reshape(shape).to(device)


# ---- Time


class Clock:
    def __init__(self, device, seconds):
        self.cuda, self.seconds = device == "cuda", seconds

    def sync(self):
        if self.cuda:
            torch.cuda.synchronize()

    def median_us(self, works):
        """The median time of one call, cycling through works. On a GPU: by events, with the queue kept full, so that what
        Python takes to launch is not counted."""
        for work in works:
            work()
        self.sync()
        began = time.perf_counter()
        works[0]()
        self.sync()
        once = max(time.perf_counter() - began, 1e-6)
        rounds = max(5, min(100, int(self.seconds / once)))
        if not self.cuda:
            times = []
            for i in range(rounds):
                began = time.perf_counter()
                works[i % len(works)]()
                times.append((time.perf_counter() - began) * 1e6)
            return sorted(times)[rounds // 2]
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(rounds)]
        if hasattr(torch.cuda, "_sleep"):
            torch.cuda._sleep(5_000_000)
        for i, (before, after) in enumerate(events):
            before.record()
            works[i % len(works)]()
            after.record()
        self.sync()
        return sorted(before.elapsed_time(after) * 1e3 for before, after in events)[rounds // 2]


def limits(device, clock, tiny):
    """What this device reaches through torch: copies, and products of matrices."""
    found = {}
    n = 1 << 20 if tiny else 1 << 30
    source, target = torch.empty(n, dtype=torch.uint8, device=device), torch.empty(n, dtype=torch.uint8, device=device)
    found["copyGBs"] = 2 * n / clock.median_us([lambda: target.copy_(source)]) / 1e3
    floats = source.view(torch.float32)
    found["sumGBs"] = n / clock.median_us([lambda: floats.sum()]) / 1e3
    del source, target, floats
    size = 256 if tiny else 8192
    for name, dtype, tf32 in (("f16", torch.float16, False), ("bf16", torch.bfloat16, False), ("f32", torch.float32, False), ("tf32", torch.float32, True)):
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        with allowing_tf32(tf32):
            found[f"{name}Tflops"] = 2 * size**3 / clock.median_us([lambda: a @ b]) / 1e6
    return found


@contextlib.contextmanager
def allowing_tf32(allowed):
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if allowed else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def fastest(clock, ways, count, error_of, most):
    """Times each way (name, work of a copy) that runs and is right; the fastest first."""
    found, refused = [], []
    for name, work in ways:
        try:
            error = error_of(work(0))
            if not error <= most:
                refused.append(f"{name}: error {error:.2e}")
                continue
            found.append({"way": name, "us": clock.median_us([lambda i=i: work(i) for i in range(count)]), "error": error})
        except (RuntimeError, TypeError) as problem:
            refused.append(f"{name}: {str(problem).strip().splitlines()[0][:160]}")
    return sorted(found, key=lambda one: one["us"]), refused


# ---- attention/decode


def decode_case(test, pattern, device, clock, folder, backends):
    dtype, b, hq, hk, d = test["dtype"], test["batch"], test["queryHeads"], test["kvHeads"], test["headDim"]
    tokens, page_size = test["context"], test["pageSize"]
    pages = b * tokens // page_size
    q = queries_of(b * hq * d, 8, device).view(b, hq, 1, d)
    table = ((torch.arange(pages, dtype=torch.int64, device=device) * 40503) % pages).view(b, -1)

    def cache(offset, copy, compute):
        stored = filled(pattern, pages * hk * page_size * d, offset + copy * COPY_OFFSET)
        if dtype == "i8":
            stored = (stored.view(-1, d).float() * scales_of(pages * hk * page_size, offset, device)[:, None]).to(compute)
        whole = stored.to(compute).view(pages, hk, page_size, d)[table]
        return whole.permute(0, 2, 1, 3, 4).reshape(b, hk, tokens, d).contiguous()

    exact = torch.float32 if dtype == "i8" else DTYPES[dtype]
    truth = decode_truth(q, cache(0, 0, exact), cache(VALUE_OFFSET, 0, exact))
    size = truth.square().mean().sqrt()
    error_of = lambda out: ((out.double().reshape(truth.shape) - truth).square().mean().sqrt() / size).item()
    checks = {}
    for backend in backends:
        got = from_file(os.path.join(folder, f"{test['name']}.{backend}.out"), torch.float32, (b, hq, d), device)
        if got is not None:
            error = error_of(got)
            checks[backend] = {"error": error, "ok": error <= 1e-3, "says": f"relative error {error:.1e}"}

    compute = COMPUTE[dtype]
    caches = [(cache(0, i, compute), cache(VALUE_OFFSET, i, compute)) for i in range(test["copies"])]
    query = q.to(compute)
    packed = query.view(b, hk, hq // hk, d)
    ways = []
    # "packed": the query heads of a KV head as so many queries, which any backend takes.
    for name in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH"):
        kind = getattr(SDPBackend, name, None)
        if kind is None:
            continue

        def grouped(i, kind=kind):
            with sdpa_kernel(kind):
                return F.scaled_dot_product_attention(query, *caches[i], enable_gqa=True)

        def together(i, kind=kind):
            with sdpa_kernel(kind):
                return F.scaled_dot_product_attention(packed, *caches[i])

        short = name.split("_")[0].lower()
        ways += [(f"sdpa {short}, enable_gqa", grouped), (f"sdpa {short}, packed heads", together)]
    found, refused = fastest(clock, ways, len(caches), error_of, 2e-2)
    return {"checks": checks, "ways": found, "refused": refused, "dtype": str(compute).split(".")[1]}


def decode_truth(q, k, v):
    """[batch, query heads, width] in f64, one KV head at a time."""
    b, hq, _, d = q.shape
    group = hq // k.shape[1]
    parts = []
    for head in range(k.shape[1]):
        queries = q[:, head * group : (head + 1) * group, 0].double()
        logits = queries @ k[:, head].double().transpose(1, 2) / math.sqrt(d)
        parts.append(torch.softmax(logits, -1) @ v[:, head].double())
    return torch.cat(parts, 1)


# ---- search/scan


def scan_case(test, pattern, device, clock, folder, backends):
    dtype, count, dim, batch, k = test["dtype"], test["count"], test["dim"], test["batch"], test["k"]
    q = queries_of(batch * dim, 1, device).view(batch, dim)
    scales = scales_of(count, 0, device) if dtype == "i8" else None

    def rows_of(copy):
        return filled(pattern, count * dim, copy * COPY_OFFSET).view(count, dim)

    stored = rows_of(0)

    def widened(at):
        """Rows by number, in f64."""
        values = stored[at].double()
        return values if scales is None else values * scales[at].double()[..., None]

    def exact(ids):
        return torch.stack([widened(ids[i].long()) @ q[i].double() for i in range(batch)])

    best = scan_truth(q, stored, scales, k, exact)
    span = best.abs().amax(1, keepdim=True)

    def compare(ids):
        """(the largest loss of score at a place, relative; the share of places with the same score)."""
        got = exact(ids).sort(1, descending=True).values
        loss = (best - got) / span
        return loss.max().item(), (loss.abs() <= 1e-7).double().mean().item()

    checks = {}
    for backend in backends:
        base = os.path.join(folder, f"{test['name']}.{backend}")
        ids = from_file(f"{base}.ids", torch.int32, (batch, k), device)
        scores = from_file(f"{base}.scores", torch.float32, (batch, k), device)
        if ids is None or scores is None:
            continue
        inside = bool(((ids >= 0) & (ids < count)).all())
        distinct = bool((ids.sort(1).values.diff(dim=1) != 0).all()) if k > 1 else True
        if not inside or not distinct:
            checks[backend] = {"error": None, "ok": False, "says": "ids out of range" if not inside else "an id twice"}
            continue
        loss, same = compare(ids)
        off = ((scores.double() - exact(ids)).abs() / span).max().item()
        checks[backend] = {"error": max(loss, off), "ok": max(loss, off) <= 1e-5, "says": f"{same:.2%} of places, scores within {max(loss, off):.1e}"}

    compute = COMPUTE[dtype]
    copies = []
    for i in range(test["copies"]):
        rows = stored if i == 0 else rows_of(i)
        copies.append((rows.float() * scales[:, None]).to(compute) if scales is not None else rows)
    query = q.to(compute)

    def way(tf32):
        def work(i):
            with allowing_tf32(tf32):
                return torch.topk(query @ copies[i].T, k, dim=1)

        return work

    ways = [("matmul + topk", way(False))]
    if dtype == "f32":
        ways.append(("matmul in tf32 + topk", way(True)))
    # In 16 bits torch rounds scores to them.
    most = 2e-6 if dtype == "f32" else 2e-2
    found, refused = fastest(clock, ways, len(copies), lambda answer: compare(answer.indices)[0], most)
    if found:
        found[0]["says"] = "{:.2%} of places".format(compare(dict(ways)[found[0]["way"]](0).indices)[1])
    return {"checks": checks, "ways": found, "refused": refused, "dtype": str(compute).split(".")[1]}


def scan_truth(q, stored, scales, k, exact):
    """The k best scores of each query: candidates by f32, then in f64."""
    count = stored.shape[0]
    values, ids = [], []
    step = max(1, min(count, 2**28 // max(1, q.shape[0])))
    with allowing_tf32(False):
        for start in range(0, count, step):
            rows = stored[start : start + step].float()
            scores = q @ rows.T
            if scales is not None:
                scores *= scales[start : start + step]
            top = torch.topk(scores, min(k + 22, scores.shape[1]), dim=1)
            values.append(top.values)
            ids.append(top.indices + start)
    top = torch.topk(torch.cat(values, 1), min(k + 22, count), dim=1)
    return exact(torch.cat(ids, 1).gather(1, top.indices)).sort(1, descending=True).values[:, :k]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("cases")
    parser.add_argument("folder")
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--backends", default="cuda,webgpu")
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        say(missing="torch has no CUDA device")
        return 4
    with open(arguments.cases) as file:
        given = json.load(file)
    cases, clock = given["cases"], Clock(arguments.device, given["seconds"])
    torch.set_float32_matmul_precision("highest")
    about = {"name": torch.cuda.get_device_name(0) if arguments.device == "cuda" else "CPU", "torch": torch.__version__}
    say(bench=about, limits=limits(arguments.device, clock, cases[0]["tiny"]) if arguments.start == 0 else None)
    patterns = {}
    for number, test in enumerate(cases):
        if number < arguments.start:
            continue
        say(begin=number, name=test["name"])
        key = (test["dtype"], test["period"])
        if key not in patterns:
            patterns[key] = pattern_of(*key, arguments.device)
        work = decode_case if test["kind"] == "decode" else scan_case
        try:
            with torch.inference_mode():
                answer = work(test, patterns[key], arguments.device, clock, arguments.folder, arguments.backends.split(","))
            say(end=number, name=test["name"], **answer)
        except Exception as problem:
            reason = f"{type(problem).__name__}: {problem}".splitlines()[0][:300]
            say(end=number, name=test["name"], error=reason)
            if "CUDA error" in reason:
                return 3  # The device is lost to this process: a new one goes on.
        if arguments.device == "cuda":
            torch.cuda.empty_cache()
    say(done=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
