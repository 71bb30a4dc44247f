"""
Looks all the time how long a daemon lets others wait.

A process of its own: C{python -m testing.trial.prober PORT}. For each line of its input it prints
the longest answer of /health since the one before, in milliseconds.
"""

from __future__ import annotations

import select
import socket
import sys
import time

_PAUSE = 0.004


def main() -> None:
    port = int(sys.argv[1])
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    longest = 0.0
    while True:
        begun = time.perf_counter()
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65536) or sys.exit("the daemon has gone")
        longest = max(longest, time.perf_counter() - begun)
        if select.select([sys.stdin], [], [], _PAUSE)[0]:
            if not sys.stdin.readline():
                return
            print(f"{longest * 1000:.1f}", flush=True)
            longest = 0.0


if __name__ == "__main__":
    main()
