"""Ports: by number, and by Twisted's endpoint strings."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.endpoints import UNIXClientEndpoint, clientFromString, wrapClientTLS
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, optionsForClientTLS

from gemproxy.config import BadSetting, Config
from gemproxy.http.listening import Address
from gemproxy.http.shared_ports import SharedEndpoint
from gemproxy.http.write_coalescer import WriteCoalescer
from gemproxy.service import Daemon
from testing.processes import free_port
from testing.tls import make_certificate
from tests.support import Connection, gpt, running_relay, until


@ensureDeferred
async def test_a_unix_socket(tmp_path: Path):
    path = tmp_path / "gemproxy.sock"
    async with running_relay(STREAM_PORT=f"unix:{path}") as relay:
        endpoint = UNIXClientEndpoint(reactor, str(path))
        client = await endpoint.connect(Factory.forProtocol(Connection))
        client.send("POST", "/v1/chat/completions", gpt())
        assert (await client.reply()).status == 200
        client.received.clear()
        client.send("POST", "/v1/files", b"x" * 100_000)
        assert (await client.reply()).status == 200
        client.drop()
        assert len(relay.upstream.calls) == 2
    assert not path.exists()


@ensureDeferred
async def test_tls(tmp_path: Path):
    pem = make_certificate(tmp_path)
    port = free_port()
    description = f"ssl:{port}:privateKey={pem}:certKey={pem}:interface=127.0.0.1"
    async with running_relay(STREAM_PORT=description) as relay:
        plain = clientFromString(reactor, f"tcp:127.0.0.1:{port}")
        trusted = Certificate.loadPEM(pem.read_bytes())
        endpoint = wrapClientTLS(optionsForClientTLS("localhost", trusted), plain)
        client = await endpoint.connect(Factory.forProtocol(Connection))
        client.send("POST", "/v1/chat/completions", gpt(stream=True))
        assert (await client.reply()).data[-1] == "[DONE]"
        client.drop()
        assert len(relay.upstream.calls) == 1


@pytest.mark.parametrize(
    "description",
    ["no-such-type:1", "ssl:1:privateKey=/nowhere.pem:certKey=/nowhere.pem", "tcp:x", "unix:a:b:c"],
)
def test_an_endpoint_string_that_is_wrong_is_named(description: str):
    environ = {"STREAM_PORT": description, "PORT": "off", "GEMINI_PROXY_URL": "http://127.0.0.1:1"}
    with pytest.raises(BadSetting, match=r"Stream Proxy|STREAM_PORT"):
        Daemon(
            Config.load({}, environ | {"LOG_DIR": "", "USAGE_DAYS": "0"}), None, reactor, environ
        )


@pytest.mark.parametrize(
    ("port", "host", "is_local"),
    [
        (3000, "127.0.0.1", True),
        (3000, "localhost", True),
        (3000, "0.0.0.0", False),
        ("unix:/run/gemproxy.sock", "0.0.0.0", True),
        ("tcp:3000", "127.0.0.1", False),
        ("tcp:3000:interface=127.0.0.1", "0.0.0.0", True),
        ("ssl:3443:privateKey=a:interface=0.0.0.0", "127.0.0.1", False),
        ("systemd:domain=INET:index=0", "127.0.0.1", False),
    ],
)
def test_an_address_is_local_only_if_that_is_certain(port: int | str, host: str, is_local: bool):
    assert Address(port, host).is_local is is_local


class Taking(Factory):
    protocol = Protocol

    def __init__(self) -> None:
        self.taken: list[Protocol] = []

    def buildProtocol(self, addr: Any) -> Protocol | None:
        made = super().buildProtocol(addr)
        if made is not None:
            self.taken.append(made)
        return made


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
@ensureDeferred
async def test_processes_at_one_socket_leave_connections_to_each_other(
    family: socket.AddressFamily, tmp_path: Path
):
    """Unless they are not taken: the other one may hang."""
    address = ("127.0.0.1", 0) if family == socket.AF_INET else str(tmp_path / "socket")
    clients = [socket.socket(family) for _ in range(40)]
    with socket.socket(family) as made:
        made.bind(address)
        made.listen(50)

        async def listen(is_modest: bool, patience: float) -> tuple[Any, Taking]:
            endpoint = SharedEndpoint(
                reactor,
                os.dup(made.fileno()),
                lambda: is_modest,
                WriteCoalescer(),
                bytes,
                patience,
            )
            return await endpoint.listen(taking := Taking()), taking

        patient, nothing = await listen(is_modest=True, patience=60)
        other, all_of_them = await listen(is_modest=False, patience=60)
        for client in clients[:20]:
            client.connect(made.getsockname())
        await until(lambda: len(all_of_them.taken) == 20, "the one takes what the other leaves")
        assert nothing.taken == []
        await other.stopListening()
        await patient.stopListening()
        last, rest = await listen(is_modest=True, patience=0.001)
        for client in clients[20:]:
            client.connect(made.getsockname())
        await until(lambda: len(rest.taken) == 20, "what nobody takes is taken")
        await last.stopListening()
    for client in clients:
        client.close()
    assert family == socket.AF_INET or Path(str(address)).exists()
    for connection in (*all_of_them.taken, *rest.taken):
        connection.transport.loseConnection()


def test_only_what_can_be_shared_is_held_for_processes():
    with pytest.raises(ValueError, match=r"tcp, tcp6, unix, ssl, systemd can be shared"):
        Address("haproxy:tcp:0", "127.0.0.1").held(reactor)
