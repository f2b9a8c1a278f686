"""Starts a client program, reads its report lines and prints one line per scenario.

A program's standard output is its log, but for lines that begin with "@@ ":
    @@ PLAN name name ...            what will be run; whatever of it is never reported has failed
    @@ PASS name seconds
    @@ FAIL name seconds reason
    @@ SKIP name reason
    @@ NOTE name text                a measurement, printed before the summary
    @@ READY                         in flight; the program waits for a line on standard input
"""

import os
import shutil
import signal
import subprocess
import threading
import time

MARK = "@@ "


class Report:
    """The printed result. Lines of several programs may come at the same time."""

    def __init__(self, logs):
        self.logs = logs
        self.lock = threading.Lock()
        self.counts = {"PASS": 0, "FAIL": 0, "SKIP": 0}
        self.notes = []

    def _line(self, kind, text):
        with self.lock:
            self.counts[kind] += 1
            print(f"{kind} {text}", flush=True)

    def passed(self, client, scenario, seconds):
        self._line("PASS", f"{client} {scenario} {seconds}s")

    def failed(self, client, scenario, reason):
        self._line("FAIL", f"{client} {scenario}: {reason}")

    def skipped(self, what, reason):
        self._line("SKIP", f"{what}: {reason}")

    def note(self, client, text):
        with self.lock:
            self.notes.append(f"note {client} {text}")

    def close(self):
        """Prints the summary, keeps the logs if anything failed, and returns the exit status."""
        for note in self.notes:
            print(note)
        failed = self.counts["FAIL"]
        nothing = failed == 0 and self.counts["PASS"] == 0
        if failed:
            print(f"logs: {self.logs}")
        else:
            shutil.rmtree(self.logs, ignore_errors=True)
        print(f"{self.counts['PASS']} passed, {failed} failed, {self.counts['SKIP']} skipped")
        return 1 if failed or nothing else 0


class Process:
    """One run of one client program."""

    def __init__(self, client, command, log_dir, report, limit_s, suffix=""):
        self.client = client.name
        self.command = command
        self.log_dir = log_dir
        self.report = report
        self.limit_s = limit_s
        self.suffix = suffix
        self.plan = None
        self.open = []
        self.ready = threading.Event()

    def start(self, arguments):
        self.log_dir.mkdir(parents=True)
        # The clients write their logs and broadcast offsets below the home directory.
        env = dict(os.environ, HOME=str(self.log_dir), FOLIO_CLIENT_HOME=str(self.log_dir), **self.command.env)
        argv = [word.replace("{home}", str(self.log_dir)) for word in self.command.argv] + arguments
        self.errors = open(self.log_dir / "stderr", "wb")
        self.deadline = time.monotonic() + self.limit_s
        self.process = subprocess.Popen(argv, env=env, cwd=self.log_dir, stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=self.errors, text=True,
                                        errors="replace", start_new_session=True)
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        with open(self.log_dir / "stdout", "w", encoding="utf-8") as log:
            for line in self.process.stdout:
                log.write(line)
                log.flush()
                if line.startswith(MARK):
                    self._reported(line[len(MARK):].strip())
        self.ready.set()

    def _reported(self, line):
        kind, _, rest = line.partition(" ")
        name, _, rest = rest.partition(" ")
        if kind == "PLAN":
            self.plan = (name + " " + rest).split()
            self.open = list(self.plan)
        elif kind == "READY":
            self.ready.set()
        elif kind == "NOTE":
            self.report.note(self.client, f"{name}: {rest}")
        elif kind in ("PASS", "FAIL", "SKIP") and name in self.open:
            self.open.remove(name)
            seconds, _, reason = rest.partition(" ")
            if kind == "PASS":
                self.report.passed(self.client, name + self.suffix, seconds)
            elif kind == "FAIL":
                self.report.failed(self.client, name + self.suffix, reason)
            else:
                self.report.skipped(f"{self.client} {name}{self.suffix}", rest)

    def wait_ready(self, seconds):
        """Until the program is in flight or has ended."""
        self.ready.wait(seconds)

    def go_on(self):
        try:
            self.process.stdin.write("go on\n")
            self.process.stdin.flush()
        except OSError:
            pass  # It ended; what it did not report is counted as failed.

    def finish(self):
        """Waits for the end; what was planned and never reported has failed."""
        reason = None
        try:
            self.process.wait(max(1.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            reason = f"the program did not end within {self.limit_s} s"
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.reader.join(10)
        self.errors.close()
        try:
            self.process.stdin.close()
        except OSError:
            pass  # A line it never read.
        if reason is None:
            reason = f"the program ended with status {self.process.returncode}"
        if self.plan is None:
            self.report.failed(self.client, "start" + self.suffix, f"{reason}: {self._last_words()}")
        for name in self.open:
            self.report.failed(self.client, name + self.suffix, reason)

    def _last_words(self):
        lines = (self.log_dir / "stderr").read_text(errors="replace").strip().splitlines()
        return lines[-1][:200] if lines else "it said nothing"
