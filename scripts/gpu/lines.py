"""Running a process that tells what it does in lines of JSON; one that stops telling is ended."""
import json
import os
import selectors
import signal
import subprocess
import tempfile
import time


def run_lines(command, on_line, idle, deadline, env=None):
    """Calls on_line with each object. Returns (why it ended, the end of what it wrote to stderr): `ended` with status 0,
    `status N`, `signal N`, `hung` after `idle` seconds without a line, or `time`. `idle` may be a function."""
    with tempfile.TemporaryFile() as errors:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, start_new_session=True, env={**os.environ, **(env or {})}
        )
        why = None
        pending = b""
        last = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(child.stdout, selectors.EVENT_READ)
            while why is None:
                now = time.monotonic()
                limit = idle() if callable(idle) else idle
                wait = min(last + limit, deadline) - now
                if wait <= 0:
                    why = "time" if now >= deadline else "hung"
                elif selector.select(min(wait, 5)):
                    data = os.read(child.stdout.fileno(), 1 << 16)
                    last = time.monotonic()
                    if not data:
                        break
                    *lines, pending = (pending + data).split(b"\n")
                    for line in lines:
                        try:
                            on_line(json.loads(line))
                        except ValueError:
                            pass  # Not ours: a driver's chatter.
        if why:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        status = child.wait()
        child.stdout.close()
        errors.seek(0, os.SEEK_END)
        errors.seek(max(0, errors.tell() - 2000))
        said = errors.read().decode("utf8", "replace").strip()
    if why is None:
        why = "ended" if status == 0 else f"signal {-status}" if status < 0 else f"status {status}"
    return why, said


def run_plain(command, deadline, env=None):
    """(status or None where the time ran out, all that it wrote)."""
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env={**os.environ, **(env or {})}
        )
        try:
            status = child.wait(timeout=max(1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            status = None
        output.seek(0)
        return status, output.read().decode("utf8", "replace")
