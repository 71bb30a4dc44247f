"""
Whether replicas that share an account's limit let more through than it allows, when they are asked
more than any of them could serve alone: C{python -m bench limits}.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from bench import accounts, dialects, light_load
from bench.contenders import Unavailable
from bench.light_load import Load
from bench.numbers import Measures
from gemproxy.accounts.file import FILE, AccountsFile
from gemproxy.accounts.known_keys import key_digest
from gemproxy.accounts.records import limits_of_json
from testing.processes import Running

REPLICAS = 3
# A minute's worth may come at once: that is the burst.
BURST = 1200
_A_SECOND = BURST / 60
_SECONDS = 10
_LOAD = Load("small", stream=False, connections=16, chunks=1)


@contextmanager
def running(folder: Path) -> Iterator[tuple[list[tuple[Running, int]], Running]]:
    """
    The replicas with their ports, and the Redis server.

    @raise Unavailable: a program is not installed.
    """
    light_load.found("wrk")
    with ExitStack() as stack:
        upstream, upstream_port = light_load.start_nginx(folder / "nginx", [_LOAD])
        stack.callback(upstream.stop)
        state = stack.enter_context(accounts.server(folder / "redis"))
        if state is None:
            raise Unavailable("redis-server is not installed (apt-get install redis-server)")
        server, url = state
        data = folder / "data"
        file = AccountsFile(data / FILE)
        file.add("bench", limits_of_json({"requests_per_minute": BURST}), 0.0)
        file.close()
        with closing(sqlite3.connect(data / FILE)) as connection, connection:
            connection.execute("UPDATE account SET digest = ?", (key_digest(_LOAD.key),))
        replicas = []
        for number in range(REPLICAS):
            replicas.append(
                dialects.start(
                    folder / str(number),
                    upstream_port,
                    f'key = "{_LOAD.key}"\n',
                    {"STATE_URL": url},
                    data_dir=data,
                    usage_days=0,
                    gemini_engine="direct",
                )
            )
            stack.callback(replicas[-1][0].stop)
        yield replicas, server


def measure(replicas: list[tuple[Running, int]], server: Running) -> Measures:
    """
    Ask all replicas for some seconds, as fast as they answer.

    @return: C{asked_s}, requests a second; C{let_through}; C{over}, how many more these are than
        the limit allows in that time, in bursts.
    """
    before = _cpu(replicas), server.cost().cpu
    began = time.monotonic()
    clients = [
        subprocess.Popen(light_load.command(_LOAD, port, _SECONDS), stdout=subprocess.PIPE)
        for _, port in replicas
    ]
    said = [json.loads(client.communicate()[0].splitlines()[-1]) for client in clients]
    seconds = time.monotonic() - began
    asked = sum(each["answers"] for each in said)
    let_through = asked - sum(each["failed"] for each in said)
    allowed = BURST + _A_SECOND * seconds
    return {
        "asked_s": asked / max(each["seconds"] for each in said),
        "let_through": let_through,
        "allowed": allowed,
        "over": max(0.0, let_through - allowed) / BURST,
        "request_ms": (_cpu(replicas) - before[0]) / asked * 1000,
        "server_ms": (server.cost().cpu - before[1]) / asked * 1000,
    }


def _cpu(replicas: list[tuple[Running, int]]) -> float:
    return sum(replica.cost().cpu for replica, _ in replicas)
