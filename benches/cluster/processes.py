"""Processes that a run starts, and what they use while a load is on, from /proc.

Only what was started here is ever stopped, by its pid.
"""

import os
import signal
import subprocess
import threading
import time

SAMPLE_S = 0.2
TICKS = os.sysconf("SC_CLK_TCK")


def spawn(command, log, env=None, cwd=None):
    """Starts a process in a group of its own; its output goes to the file `log`."""
    with open(log, "ab") as out:
        return subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )


def stop(processes, gently=None):
    """Ends processes and the groups they lead."""
    for process in processes:
        try:
            os.killpg(process.pid, gently or signal.SIGKILL)
        except ProcessLookupError:
            pass
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait(10)


def children(pid):
    """The pids of a process's children."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        fields = read(f"/proc/{name}/stat").rpartition(")")[2].split()
        if len(fields) > 1 and int(fields[1]) == pid:
            found.append(int(name))
    return sorted(found)


def read(path):
    try:
        with open(path) as file:
            return file.read()
    except OSError:
        return ""


def usage(pid):
    """CPU seconds, bytes written to storage, resident bytes, resident bytes without file pages."""
    fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / TICKS if len(fields) > 12 else 0.0
    keys = {}
    for line in (read(f"/proc/{pid}/io") + read(f"/proc/{pid}/status")).splitlines():
        key, _, value = line.partition(":")
        keys[key] = value.split()[:1]
    number = lambda key, unit: int((keys.get(key) or ["0"])[0]) * unit
    return cpu, number("write_bytes", 1), number("VmRSS", 1024), number("RssAnon", 1024)


class Watch(threading.Thread):
    """Samples servers while a load runs; the window is known only when the load has ended."""

    def __init__(self, pids):
        super().__init__(daemon=True)
        self.pids, self.samples, self.over = pids, [], threading.Event()

    def run(self):
        while not self.over.is_set():
            each = [usage(pid) for pid in self.pids]
            self.samples.append((time.monotonic(), *map(sum, zip(*each)), max(u[2] for u in each), max(u[3] for u in each)))
            self.over.wait(SAMPLE_S)

    def window(self, end, seconds):
        """Cores used, bytes written a second, largest resident and anonymous bytes of one node."""
        self.over.set()
        self.join()
        inside = [s for s in self.samples if end - seconds <= s[0] <= end]
        if len(inside) < 2:
            return None
        first, last = inside[0], inside[-1]
        time_s = last[0] - first[0]
        return {
            "cores": (last[1] - first[1]) / time_s,
            "written_per_s": (last[2] - first[2]) / time_s,
            "rss": max(s[5] for s in inside),
            "anon": max(s[6] for s in inside),
        }
