"""Scenarios of the PyPI client `rocketmq` 0.4.4, which wraps the C++ client of 2018.

Each scenario is a process of its own: the library keeps global state, and its threads do not always end.
Reports lines for the script: "@@ PLAN name ...", "@@ PASS name seconds", "@@ FAIL name seconds reason".

    client.py --namesrv ADDRS --run ID [--only a,b] [--limit SECONDS] [--jobs N]
"""

import argparse
import glob
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

# How long anything may take to come true, on however busy a machine; nothing is slower for it.
PATIENCE_S = 120


class Inbox:
    """What a consumer got, by payload."""

    def __init__(self):
        self.lock = threading.Lock()
        self.messages = {}

    def add(self, message):
        # The library frees a message after the callback: copy what is checked later.
        with self.lock:
            self.messages[message.body.decode()] = (message.tags, message.keys, message.topic)

    def await_all(self, expected, seconds):
        end = time.monotonic() + seconds
        while True:
            with self.lock:
                missing = [payload for payload in expected if payload not in self.messages]
            if not missing:
                return
            if time.monotonic() > end:
                raise AssertionError(f"{len(missing)} of {len(expected)} messages not consumed within {seconds} s, "
                                     f"first {missing[0][:40]}")
            time.sleep(0.05)


class Lab:
    """Names no other run has, and clients."""

    def __init__(self, namesrv, run):
        self.namesrv = namesrv
        self.run = run

    def topic(self, name):
        return f"t_{name}_{self.run}"

    def group(self, name):
        return f"g_{name}_{self.run}"

    def producer(self, name):
        from rocketmq.client import Producer
        producer = Producer(self.group(name + "_producer"), timeout=30_000)
        producer.set_namesrv_addr(self.namesrv)
        producer.start()
        return producer

    def push(self, name, topic, callback, expression="*"):
        from rocketmq.client import PushConsumer
        consumer = PushConsumer(self.group(name))
        consumer.set_namesrv_addr(self.namesrv)
        consumer.subscribe(topic, callback, expression)
        consumer.start()
        return consumer


class ClientLog:
    """What this process's client wrote of itself since it was asked last.

    The library waits up to 3 s for the lock of its table of connections, but tells the wait a deadline of the steady
    clock where the system's time is meant, which is always past (GCC bug 54562). So a thread that finds the table in
    use gives up at once, without a word to any broker, and says so here. That happens when a producer sends while
    the same process's consumer connects to the other brokers, and is no answer of the cluster.
    """

    GAVE_UP = b"get timed_mutex timeout"

    def __init__(self):
        self.seen = {}

    def gave_up(self):
        """Whether the client gave up on its own lock since the last call."""
        found = False
        for path in glob.glob(os.path.expanduser(f"~/logs/rocketmq-cpp/{os.getpid()}_*")):
            with open(path, "rb") as log:
                log.seek(self.seen.get(path, 0))
                new = log.read()
            # Up to the last whole line: the rest is read next time.
            whole = new[:new.rfind(b"\n") + 1]
            self.seen[path] = self.seen.get(path, 0) + len(whole)
            found |= self.GAVE_UP in whole
        return found


CLIENT_LOG = ClientLog()


def sent_by(sending):
    """Sends, and again for as long as the client itself gave up before it had sent: an application's part.

    Any other failure is raised. A one-way send fails without a word, so it is made again whenever the client gave up
    on anything meanwhile; what arrives twice is counted once.
    """
    end = time.monotonic() + PATIENCE_S
    while True:
        CLIENT_LOG.gave_up()
        try:
            result = sending()
        except Exception:
            if not CLIENT_LOG.gave_up() or time.monotonic() > end:
                raise
        else:
            if result is not None or not CLIENT_LOG.gave_up():
                return result
        time.sleep(0.05)


def message(topic, tag, key, payload):
    from rocketmq.client import Message
    made = Message(topic)
    made.set_tags(tag)
    made.set_keys(key)
    made.set_body(payload)
    return made


def send(producer, topic, prefix, count, tag="tag"):
    from rocketmq.client import SendStatus
    sent = []
    for i in range(count):
        payload = f"{prefix}-{i}"
        result = sent_by(lambda body=payload: producer.send_sync(message(topic, tag, body, body)))
        assert result.status == SendStatus.OK, f"send status {result.status}"
        assert len(result.msg_id) >= 32, f"message id {result.msg_id}"
        sent.append(payload)
    return sent


def consuming(lab, name, topic, producing):
    """Starts a consumer, which begins at the end of the queues, and sends until it takes part."""
    inbox = Inbox()
    consumer = lab.push(name, topic, inbox.add)
    end = time.monotonic() + PATIENCE_S
    i = 0
    while not inbox.messages:
        assert time.monotonic() < end, f"the consumer got nothing within {PATIENCE_S} s"
        send(producing, topic, f"probe{i}", 4)
        i += 1
        time.sleep(0.2)
    return inbox, consumer


def send_sync(lab):
    topic = lab.topic("sync")
    producer = lab.producer("sync")
    send(producer, topic, "first", 4)
    inbox, consumer = consuming(lab, "sync", topic, producer)
    sent = send(producer, topic, "sync", 40, "TagP")
    large = "large-payload-" * 2000
    sent_by(lambda: producer.send_sync(message(topic, "TagP", "large", large)))
    inbox.await_all(sent + [large], PATIENCE_S)
    for payload in sent:
        tags, keys, came_from = inbox.messages[payload]
        assert tags == b"TagP" and payload.encode() in keys and came_from == topic, f"{payload}: {tags} {keys}"
    consumer.shutdown()
    producer.shutdown()


def send_oneway(lab):
    topic = lab.topic("oneway")
    producer = lab.producer("oneway")
    send(producer, topic, "first", 4)
    inbox, consumer = consuming(lab, "oneway", topic, producer)
    sent = []
    for i in range(30):
        sent_by(lambda body=f"oneway-{i}": producer.send_oneway(message(topic, "tag", "key", body)))
        sent.append(f"oneway-{i}")
    inbox.await_all(sent, PATIENCE_S)
    consumer.shutdown()
    producer.shutdown()


def push_consume(lab):
    """What was sent while the consumer was away comes when the group is back."""
    topic = lab.topic("push")
    producer = lab.producer("push")
    send(producer, topic, "first", 4)
    inbox, consumer = consuming(lab, "push", topic, producer)
    inbox.await_all(send(producer, topic, "present", 20), PATIENCE_S)
    time.sleep(6)  # This client stores its position every 5 s.
    consumer.shutdown()
    away = send(producer, topic, "away", 20)
    back = Inbox()
    consumer = lab.push("push", topic, back.add)
    back.await_all(away, PATIENCE_S)
    consumer.shutdown()
    producer.shutdown()


SCENARIOS = {"push-consume": push_consume, "send-sync": send_sync, "send-oneway": send_oneway}


def report(line):
    print("@@ " + line, flush=True)


def one(name, options):
    """Runs one scenario in a process of its own; its last line says how it went."""
    start = time.monotonic()
    argv = [sys.executable, os.path.abspath(__file__), "--namesrv", options.namesrv, "--run", options.run, "--one", name]
    try:
        run = subprocess.run(argv, capture_output=True, text=True, errors="replace", timeout=options.limit, check=False)
        said = [line for line in run.stdout.splitlines() if line.startswith("result ")]
        reason = said[-1][len("result "):] if said else f"ended with status {run.returncode}: {run.stderr[-200:]}"
        print(run.stdout + run.stderr)
    except subprocess.TimeoutExpired:
        reason = f"time limit of {options.limit} s"
    took = f"{time.monotonic() - start:.1f}"
    report(f"PASS {name} {took}" if reason == "ok" else f"FAIL {name} {took} {' '.join(reason.split())}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--namesrv", required=True)
    parser.add_argument("--run", required=True)
    parser.add_argument("--only")
    parser.add_argument("--limit", type=int, default=300)
    parser.add_argument("--jobs", type=int, default=4)
    parser.add_argument("--one")
    options = parser.parse_args()
    if options.one:
        try:
            SCENARIOS[options.one](Lab(options.namesrv, options.run))
            print("result ok", flush=True)
        except Exception as e:  # pylint: disable=broad-except
            print(f"result {e.__class__.__name__}: {e}", flush=True)
        # Past the library's destructors, which wait for threads of their own.
        os._exit(0)
    wanted = options.only.split(",") if options.only else list(SCENARIOS)
    plan = [name for name in SCENARIOS if name in wanted]
    report("PLAN " + " ".join(plan))
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda name: one(name, options), plan))


if __name__ == "__main__":
    main()
