"""The systems that are measured: how each is started with three nodes on 127.0.0.1, stopped, and loaded.

What an acknowledgement means in each is said here, next to the configuration that makes it so.
"""

import json
import os
import pathlib
import shutil
import signal
import subprocess
import time

from processes import children, spawn, stop

HERE = pathlib.Path(__file__).resolve().parent
QUEUE = "bench"
START_S = 90


class Missing(Exception):
    """A program that a system needs is not on this machine."""


def need(program, hint):
    found = shutil.which(str(program))
    if not found:
        raise Missing(f"{program} not found: {hint}")
    return found


class System:
    """Three nodes. `load` gives the command that loads them and prints one JSON object."""

    name, acknowledged = "", ""
    #: Seconds of load before the first measurement: for those that compile or cache first.
    warm_s = 3.0

    def __init__(self, setup):
        self.setup, self.port = setup, setup.base_port + self.offset
        self.folder = setup.data / self.name.replace(" ", "-")
        self.processes = []

    def check(self):
        """Raises Missing if it cannot run here."""

    def start(self):
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.launch()
        self.wait()

    def wait(self):
        """Until a short load succeeds."""
        deadline, last = time.monotonic() + START_S, ""
        while time.monotonic() < deadline:
            try:
                tried = subprocess.run(self.load(128, 1, 0.5, 0.0), capture_output=True, text=True, timeout=40)
            except subprocess.TimeoutExpired:
                continue
            if tried.returncode == 0:
                return
            last = tried.stderr.strip()[-300:]
            time.sleep(1)
        raise RuntimeError(f"{self.name} took no message within {START_S} s: {last}")

    def pids(self):
        return [process.pid for process in self.processes]

    def stop(self):
        stop(self.processes)
        self.processes = []
        shutil.rmtree(self.folder, ignore_errors=True)

    def ports(self, step=1, first=0):
        return [self.port + first + step * node for node in range(3)]

    def peers_load(self, system, addresses, size, outstanding, seconds, warmup):
        return [str(self.setup.peers), "load", system, "--addresses", ",".join(addresses), "--size", str(size)] + [
            "--outstanding", str(outstanding), "--seconds", str(seconds), "--warmup", str(warmup)]

    def folio_load(self, namesrv, size, outstanding, seconds, warmup):
        return [str(self.setup.folio), "bench", "send", "--json", "-n", namesrv, "--topic", QUEUE, "--size", str(size)] + [
            "--outstanding", str(outstanding), "--seconds", str(seconds), "--warmup", str(warmup)]


class Floor(System):
    name, offset, warm_s, log = "floor", 0, 1.0, "ring"
    acknowledged = "fdatasync on 2 of 3; no protocol, no log format: the machine's limit"

    def launch(self):
        leader, *followers = [f"127.0.0.1:{port}" for port in self.ports()]
        for number, address in enumerate(followers):
            command = [self.setup.peers, "floor-follower", "--listen", address, "--data", self.folder / str(number), "--log", self.log]
            self.processes.append(spawn(command, self.folder / "log"))
        # The followers listen once their files are full of zeros.
        time.sleep(4)
        for _ in range(10):
            command = [self.setup.peers, "floor-leader", "--listen", leader, "--data", self.folder / "leader"]
            process = spawn([*command, "--log", self.log, "--followers", *followers], self.folder / "log")
            time.sleep(2)
            if process.poll() is None:
                self.processes.append(process)
                return
        raise RuntimeError("the floor's followers do not listen")

    def load(self, *what):
        return self.peers_load("floor", [f"127.0.0.1:{self.port}"], *what)


class GrowingFloor(Floor):
    """The same with a log that keeps what it was given, as a queue's does, instead of one written round and round."""

    name, offset, log = "floor, growing log", 50, "growing"
    acknowledged = "fdatasync on 2 of 3; the same program, with a log that keeps what it was given"


class Folio(System):
    name, offset = "FolioMQ", 100
    acknowledged = "fdatasync on 2 of 3"

    def launch(self):
        command = [self.setup.folio, "cluster", "--data", self.folder / "data", "--base-port", self.port]
        self.processes.append(spawn(command, self.folder / "log"))

    def pids(self):
        # The launcher itself serves nobody.
        return children(self.processes[0].pid)

    def stop(self):
        # The nodes end with their launcher.
        stop(self.processes, signal.SIGINT)
        super().stop()

    def load(self, *what):
        return self.folio_load(f"127.0.0.1:{self.port}", *what)


class RocketMq(System):
    warm_s = 10.0
    flush = ""

    def check(self):
        need("java", "RocketMQ runs on it")
        self.jars = self.setup.fetched / "rocketmq"
        if not list(self.jars.glob("rocketmq-broker-*.jar")):
            raise Missing("RocketMQ's jars: run benches/cluster/fetch")

    def java(self, memory, main, config, home):
        flags = [f"-Xms{memory}", f"-Xmx{memory}", "-XX:+UseG1GC", "-Djava.net.preferIPv4Stack=true"]
        flags += [f"-Duser.home={home}", "-Drocketmq.broker.diskSpaceWarningLevelRatio=0.98"]
        env = {"ROCKETMQ_HOME": str(self.folder / "home")}
        command = ["java", *flags, "-cp", f"{self.jars}/*", main, "-c", config]
        self.processes.append(spawn(command, self.folder / "log", env))

    def launch(self):
        (self.folder / "home" / "conf").mkdir(parents=True)
        namesrv = f"127.0.0.1:{self.port}"
        config = self.folder / "namesrv.properties"
        config.write_text(f"listenPort={self.port}\nbindAddress=127.0.0.1\nkvConfigPath={self.folder}/kv.json\n")
        self.java("256m", "org.apache.rocketmq.namesrv.NamesrvStartup", config, self.folder / "namesrv")
        time.sleep(3)
        peers = ";".join(f"n{node}-127.0.0.1:{port}" for node, port in enumerate(self.ports(10, 14)))
        for node, port in enumerate(self.ports(10, 10)):
            config = self.folder / f"broker{node}.conf"
            config.write_text(self.broker_conf(node, port, namesrv, peers))
            self.java("1g", "org.apache.rocketmq.broker.BrokerStartup", config, self.folder / f"home{node}")

    def broker_conf(self, node, port, namesrv, peers):
        # What is not a place or an address: a smaller log file, because three are made ahead on one disk;
        # a longer stay in the queue, because it refuses with SYSTEM_BUSY after 200 ms otherwise; no timer
        # wheel, which preallocates and is not used here.
        return f"""brokerClusterName=Bench
brokerName=g0
brokerIP1=127.0.0.1
bindAddress=127.0.0.1
listenPort={port}
namesrvAddr={namesrv}
storePathRootDir={self.folder}/store{node}
mappedFileSizeCommitLog=268435456
enableDLegerCommitLog=true
dLegerGroup=g0
dLegerPeers={peers}
dLegerSelfId=n{node}
flushDiskType={self.flush}
registerNameServerPeriod=5000
timerWheelEnable=false
waitTimeMillsInSendQueue=2000
diskMaxUsedSpaceRatio=95
"""

    def load(self, *what):
        return self.folio_load(f"127.0.0.1:{self.port}", *what)


class RocketMqAsync(RocketMq):
    name, offset, flush = "RocketMQ DLedger async", 200, "ASYNC_FLUSH"
    acknowledged = "in the page cache of 2 of 3; flushed every 10 ms, errors of it not seen"


class RocketMqSync(RocketMq):
    name, offset, flush = "RocketMQ DLedger SYNC_FLUSH", 250, "SYNC_FLUSH"
    acknowledged = "the same: DLedger does not look at SYNC_FLUSH"


class Nats(System):
    name, offset = "NATS JetStream", 300
    acknowledged = "fsync on 2 of 3 (sync_interval: always)"

    def check(self):
        places = [os.environ.get("NATS_SERVER"), "nats-server", self.setup.fetched / "nats" / "bin" / "nats-server"]
        found = next((shutil.which(str(place)) for place in places if place and shutil.which(str(place))), None)
        if not found:
            raise Missing("nats-server: run benches/cluster/fetch, or name one in NATS_SERVER (2.10 or later)")
        self.server = found

    def launch(self):
        routes = ", ".join(f"nats://127.0.0.1:{port}" for port in self.ports(1, 10))
        for node, (port, route) in enumerate(zip(self.ports(), self.ports(1, 10)), 1):
            config = self.folder / f"n{node}.conf"
            config.write_text(f"""server_name: n{node}
listen: 127.0.0.1:{port}
jetstream {{ store_dir: "{self.folder}/n{node}", max_mem: 256MB, max_file: 20GB, sync_interval: always }}
cluster {{ name: bench, listen: 127.0.0.1:{route}, routes: [{routes}] }}
""")
            self.processes.append(spawn([self.server, "-c", config], self.folder / "log"))

    def load(self, *what):
        return self.peers_load("nats", [f"127.0.0.1:{port}" for port in self.ports()], *what)


class RabbitMq(System):
    name, offset, warm_s = "RabbitMQ quorum queue", 400, 5.0
    acknowledged = "fsync on 2 of 3 (quorum queue, publisher confirms)"

    def check(self):
        self.server = need("/usr/lib/rabbitmq/bin/rabbitmq-server", "run benches/cluster/fetch as root")
        need("epmd", "it comes with RabbitMQ's Debian package")

    def launch(self):
        (self.folder / "plugins").write_text("[].")
        cookie = self.folder / ".erlang.cookie"
        cookie.write_text("FOLIOBENCH")
        cookie.chmod(0o400)
        # A port mapper of its own, so that none is left behind on the usual port.
        self.epmd_port = self.port + 20
        mapper = ["epmd", "-address", "127.0.0.1", "-port", self.epmd_port]
        self.mapper = spawn(mapper, self.folder / "log")
        for node, port in enumerate(self.ports(), 1):
            self.one(node, port)
            time.sleep(8)

    def one(self, node, port):
        base = "cluster_formation.classic_config"
        names = "".join(f"{base}.nodes.{n} = r{n}@localhost\n" for n in (1, 2, 3))
        config = self.folder / f"r{node}.conf"
        config.write_text(
            f"loopback_users = none\ncluster_formation.peer_discovery_backend = classic_config\n{names}"
            f"log.file.level = warning\nvm_memory_high_watermark.absolute = 4GB\n"
            f"disk_free_limit.absolute = 1GB\nlisteners.tcp.local = 127.0.0.1:{port}\n"
        )
        env = {
            "HOME": self.folder,
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": self.epmd_port,
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": self.folder / "plugins",
            "RABBITMQ_NODENAME": f"r{node}@localhost",
            "RABBITMQ_NODE_PORT": port,
            "RABBITMQ_DIST_PORT": port + 10,
            "RABBITMQ_MNESIA_BASE": self.folder / str(node),
            "RABBITMQ_LOG_BASE": self.folder / "logs",
            "RABBITMQ_PID_FILE": self.folder / f"{node}.pid",
            "RABBITMQ_CONFIG_FILE": self.folder / f"r{node}",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
        }
        env = {key: str(value) for key, value in env.items()}
        self.processes.append(spawn([self.server], self.folder / "log", env))

    def pids(self):
        return [int((self.folder / f"{node}.pid").read_text()) for node in (1, 2, 3)]

    def stop(self):
        mapper = getattr(self, "mapper", None)
        stop([*self.processes, *([mapper] if mapper else [])])
        self.processes, self.mapper = [], None
        super().stop()

    def load(self, *what):
        # The queue's leader is where it was declared: all connections go there.
        return self.peers_load("rabbitmq", [f"127.0.0.1:{self.port}"], *what)


class Etcd(System):
    name, offset = "etcd", 500
    acknowledged = "fdatasync on 2 of 3 (put)"

    def check(self):
        need("etcd", "run benches/cluster/fetch as root")
        need("etcdctl", "run benches/cluster/fetch as root")

    def launch(self):
        peers = [f"http://127.0.0.1:{port}" for port in self.ports(1, 10)]
        cluster = ",".join(f"e{node}={peer}" for node, peer in enumerate(peers))
        for node, port in enumerate(self.ports()):
            client = f"http://127.0.0.1:{port}"
            command = ["etcd", "--name", f"e{node}", "--data-dir", self.folder / str(node)]
            command += ["--listen-client-urls", client, "--advertise-client-urls", client]
            command += ["--listen-peer-urls", peers[node], "--initial-advertise-peer-urls", peers[node]]
            command += ["--initial-cluster", cluster, "--initial-cluster-state", "new", "--initial-cluster-token", "b"]
            command += ["--quota-backend-bytes", 8_000_000_000, "--logger", "zap", "--log-level", "error"]
            (self.folder / str(node)).mkdir(mode=0o700)
            self.processes.append(spawn(command, self.folder / "log"))
        self.leader = None

    def load(self, *what):
        self.leader = self.leader or self.find_leader()
        return self.peers_load("etcd", [self.leader or f"127.0.0.1:{self.port}"], *what)

    def find_leader(self):
        endpoints = ",".join(f"http://127.0.0.1:{port}" for port in self.ports())
        command = ["etcdctl", "--endpoints", endpoints, "endpoint", "status", "-w", "json"]
        env = {**os.environ, "ETCDCTL_API": "3"}
        asked = subprocess.run(command, capture_output=True, text=True, env=env, timeout=20)
        try:
            answers = json.loads(asked.stdout)
        except ValueError:
            return None
        for answer in answers:
            status = answer["Status"]
            if status.get("leader") == status["header"]["member_id"]:
                return answer["Endpoint"].removeprefix("http://")
        return None


ALL = {
    "floor": Floor,
    "floor-growing": GrowingFloor,
    "folio": Folio,
    "rocketmq-async": RocketMqAsync,
    "rocketmq-sync": RocketMqSync,
    "nats": Nats,
    "rabbitmq": RabbitMq,
    "etcd": Etcd,
}
