"""Three FolioMQ nodes that a measurement may stop, kill, pause, put far apart, or run with another flush mode."""

import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time

import pages
from processes import spawn, stop, usage

HERE = pathlib.Path(__file__).resolve().parent
READY_S = 60


class Nodes:
    """Nodes 1 to `count`, each a process of its own. Ports from `base` to `base` + 50 are used."""

    def __init__(self, folio, base, folder, count=3, flush="sync", link_ms=0.0, keep=None):
        self.folio, self.base, self.folder = folio, base, folder
        self.ids, self.flush, self.link_ms = range(1, count + 1), flush, link_ms
        self.processes, self.relay, self.keep = {}, None, keep

    def __enter__(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        pages.fill(self.folder.parent)
        for node in self.ids:
            (self.folder / f"{node}.toml").write_text(self.config(node))
        try:
            self.start()
        except BaseException:
            # `__exit__` is not called then. The files stay: the error names their folder.
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def start(self):
        if self.link_ms:
            links = [f"{self.port(a, 10 + b)}:{self.port(b, 4)}" for a in self.ids for b in self.ids if a != b]
            command = [sys.executable, HERE / "relay.py", self.link_ms, *links]
            self.relay = spawn(command, self.folder / "relay.log")
        for node in self.ids:
            self.launch(node)
        self.wait()

    def stop(self):
        stop([*self.processes.values(), *([self.relay] if self.relay else [])])

    def port(self, node, of):
        """0: NameServer, 4: Raft, 5: broker; 10 and more: this node's own way to node `of` - 10."""
        return self.base + 15 * (node - 1) + of

    def config(self, node):
        local = lambda which, of: f'{which} = "127.0.0.1:{self.port(node, of)}"'
        lines = [f"node_id = {node}", f'data_dir = "{self.folder / str(node)}"']
        lines += ["[listen]", local("namesrv", 0), local("raft", 4), local("broker", 5)]
        lines += ["[log]", f'flush = "{self.flush}"', 'segment_size = "256MiB"', *([f'keep_size = "{self.keep}"'] if self.keep else [])]
        for other in self.ids:
            address = lambda which, of: f'{which} = "127.0.0.1:{self.port(other, of)}"'
            lines += ["[[nodes]]", f"id = {other}", address("namesrv", 0), address("raft", 4), address("broker", 5)]
        if self.link_ms:
            lines += ["[dial]", *(f'{to} = "127.0.0.1:{self.port(node, 10 + to)}"' for to in self.ids if to != node)]
        return "\n".join(lines) + "\n"

    def launch(self, node):
        command = [self.folio, "node", "-c", self.folder / f"{node}.toml"]
        self.processes[node] = spawn(command, self.folder / f"{node}.log")

    def wait(self):
        """Until every node says who leads, and a message is acknowledged."""
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            statuses = self.status()
            if len(statuses) == len(self.ids) and all(status["leader"] for status in statuses):
                try:
                    return self.send("probe", 100, 1, 0.1, warmup=0)
                except RuntimeError:
                    pass
            time.sleep(0.05)
        raise RuntimeError(f"no leader within {READY_S} s: {self.folder}")

    def until_acknowledged(self, node, topic):
        """Seconds until a SEND to this node is acknowledged, tried anew every few milliseconds on a connection of its own."""
        begun = time.monotonic()
        while time.monotonic() < begun + READY_S:
            try:
                with socket.create_connection(("127.0.0.1", self.port(node, 5)), 1) as connection:
                    while time.monotonic() < begun + READY_S:
                        if send_once(connection, topic) == 0:
                            return time.monotonic() - begun
                        time.sleep(0.002)
            except OSError:
                time.sleep(0.002)
        raise RuntimeError(f"nothing was acknowledged within {READY_S} s: {self.folder}")

    def status(self):
        """What each node that answers says of itself."""
        command = [self.folio, "cluster", "status", "--json", "-n", self.namesrv()]
        done = subprocess.run(map(str, command), capture_output=True, text=True, timeout=60)
        rows = json.loads(done.stdout) if done.returncode == 0 else []
        return [row for row in rows if row.get("leader")]

    def leader(self):
        leaders = [row["leader"] for row in self.status()]
        if not leaders:
            raise RuntimeError("nobody leads")
        return max(set(leaders), key=leaders.count)

    def term(self):
        return max((row["term"] for row in self.status()), default=0)

    def namesrv(self):
        return ",".join(f"127.0.0.1:{self.port(node, 0)}" for node in self.ids)

    def pids(self):
        return [process.pid for process in self.processes.values()]

    def signal(self, node, number):
        os.kill(self.processes[node].pid, number)

    def kill(self, node):
        self.signal(node, signal.SIGKILL)
        self.processes[node].wait(10)

    def bench(self, load, *flags):
        """Starts a load; `result` waits for it."""
        command = [self.folio, "bench", load, "--json", "-n", self.namesrv(), *flags]
        return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def send(self, topic, size, outstanding, seconds, *flags, warmup=1.0):
        return result(self.sending(topic, size, outstanding, seconds, *flags, warmup=warmup), seconds + warmup)

    def sending(self, topic, size, outstanding, seconds, *flags, warmup=1.0):
        words = ["--topic", topic, "--size", size, "--outstanding", outstanding]
        return self.bench("send", *words, "--seconds", seconds, "--warmup", warmup, *flags)

    def memory(self):
        """Of the largest node, without file pages, in bytes."""
        return max(usage(pid)[3] for pid in self.pids())

    def log_bytes(self):
        """Of the largest node's log, as far as it is filled."""
        return max((row["applied_position"] for row in self.status()), default=0)

    def forget_pages(self):
        """Takes the nodes' files out of the page cache. Nodes that run hold on to what they have mapped."""
        for path in self.folder.rglob("*"):
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def send_once(connection, topic):
    """Sends one message of 100 bytes to queue 0: the answer's code, 0 once it is acknowledged."""
    fields = {"producerGroup": "reach", "topic": topic, "defaultTopic": "TBW102", "defaultTopicQueueNums": "4", "queueId": "0",
              "sysFlag": "0", "bornTimestamp": str(int(time.time() * 1000)), "flag": "0", "properties": "", "reconsumeTimes": "0",
              "unitMode": "false", "maxReconsumeTimes": "0", "batch": "false"}
    header = {"code": 10, "language": "JAVA", "version": 395, "opaque": 1, "flag": 0, "extFields": fields}
    header, body = json.dumps(header).encode(), b"x" * 100
    connection.sendall(struct.pack(">II", 4 + len(header) + len(body), len(header)) + header + body)
    answer = b""
    while len(answer) < 8 or len(answer) < 4 + struct.unpack(">I", answer[:4])[0]:
        part = connection.recv(65536)
        if not part:
            raise ConnectionError("the node closed the connection")
        answer += part
    return json.loads(answer[8 : 8 + (struct.unpack(">I", answer[4:8])[0] & 0xFFFFFF)])["code"]


def result(process, seconds):
    """What a load found."""
    try:
        out, error = process.communicate(timeout=seconds + 120)
    except subprocess.TimeoutExpired:
        process.kill()
        raise RuntimeError("a load did not end") from None
    if process.returncode:
        raise RuntimeError(error.strip()[-300:])
    return json.loads(out.strip().splitlines()[-1])
