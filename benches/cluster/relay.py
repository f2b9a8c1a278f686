#!/usr/bin/env python3
"""TCP relays that hand bytes on some time after they came: `relay.py MILLISECONDS LISTEN:TARGET...`, ports of 127.0.0.1.

Each direction is delayed by itself and keeps its order; how much is under way is not limited. For measurements only."""

import queue
import socket
import sys
import threading
import time

CHUNK_BYTES = 1 << 20


def pump(source, sink, delay_s):
    """Reads as fast as it comes; another thread writes what is due."""
    waiting = queue.SimpleQueue()

    def write():
        while True:
            due, chunk = waiting.get()
            time.sleep(max(0.0, due - time.monotonic()))
            try:
                if not chunk:
                    return sink.shutdown(socket.SHUT_WR)
                sink.sendall(chunk)
            except OSError:
                return source.close()

    threading.Thread(target=write, daemon=True).start()
    while True:
        try:
            chunk = source.recv(CHUNK_BYTES)
        except OSError:
            chunk = b""
        waiting.put((time.monotonic() + delay_s, chunk))
        if not chunk:
            return


def serve(listen, target, delay_s):
    listener = socket.create_server(("127.0.0.1", listen))
    while True:
        near, _ = listener.accept()
        try:
            far = socket.create_connection(("127.0.0.1", target), 5)
        except OSError:
            near.close()
            continue
        far.settimeout(None)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for ends in ((near, far), (far, near)):
            threading.Thread(target=pump, args=(*ends, delay_s), daemon=True).start()


def main():
    delay_s = float(sys.argv[1]) / 1000
    for link in sys.argv[2:]:
        listen, target = map(int, link.split(":"))
        threading.Thread(target=serve, args=(listen, target, delay_s), daemon=True).start()
    threading.Event().wait()


main()
