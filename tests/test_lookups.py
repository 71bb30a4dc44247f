"""Threads of their own, and looking up names in them, while the system takes its time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define, field
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred, TimeoutError
from twisted.internet.task import Clock

from gemproxy.http.lookups import HostnameResolver, Lookups
from gemproxy.util.threads import Threads
from tests.support import until


@define
class System:
    """
    The system's resolver, which answers when a test lets it.

    @ivar asked: the names, in their order.
    """

    asked: list[str] = field(factory=list)
    answers: dict[str, threading.Event] = field(factory=dict)

    def slow(self, *names: str) -> None:
        self.answers |= {name: threading.Event() for name in names}

    def getaddrinfo(self, host: str, port: int, **rest: Any) -> list[Any]:
        self.asked.append(host)
        if (answer := self.answers.get(host)) is not None:
            answer.wait()
        if host.startswith("unknown"):
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        stream = socket.SOCK_STREAM
        return [
            (socket.AF_INET6, stream, 6, "", ("2001:db8::1", port, 0, 0)),
            (socket.AF_INET, stream, 6, "", ("192.0.2.1", port)),
            (socket.AF_INET, stream, 6, "", ("192.0.2.1", port)),
        ]


BOTH = ["2001:db8::1", "192.0.2.1"]


@pytest.fixture
def system() -> Iterator[System]:
    system = System()
    yield system
    for answer in system.answers.values():
        answer.set()


def lookups(system: System, threads: int = 2, clock: Any = reactor) -> Lookups:
    return Lookups(clock, Threads(reactor, threads, "test"), 5.0, system.getaddrinfo)


@ensureDeferred
async def test_the_addresses_come_in_the_systems_order_each_once(system: System) -> None:
    looking = lookups(system)
    assert await looking.addresses("host.test") == BOTH
    assert await looking.addresses("unknown.test") == []
    assert await looking.addresses("host.test") == BOTH
    assert system.asked == ["host.test", "unknown.test", "host.test"]


@ensureDeferred
async def test_who_asks_for_the_same_host_shares_a_look_up(system: System) -> None:
    system.slow("slow.test")
    looking = lookups(system)
    asking = [looking.addresses("slow.test") for _ in range(100)]
    asking[0].addErrback(lambda failure: failure.trap(CancelledError)).cancel()
    assert await looking.addresses("host.test") == BOTH
    system.answers["slow.test"].set()
    for one in asking[1:]:
        assert await one == BOTH
    assert sorted(system.asked) == ["host.test", "slow.test"]


@ensureDeferred
async def test_nobody_waits_for_longer_than_the_limit(system: System) -> None:
    system.slow("slow.test")
    clock = Clock()
    looking = lookups(system, threads=1, clock=clock)
    asking = [looking.addresses(name) for name in ("slow.test", "host.test")]
    clock.advance(5)
    for one in asking:
        with pytest.raises(TimeoutError):
            await one
    # The thread is free when the system has given up. Nobody asks any more for the second one.
    system.answers["slow.test"].set()
    assert await looking.addresses("third.test") == BOTH
    assert system.asked == ["slow.test", "third.test"]


@ensureDeferred
async def test_slow_names_take_only_the_threads_of_their_kind(system: System) -> None:
    names = [f"slow{number}.test" for number in range(32)]
    system.slow(*names)
    pictures, others = lookups(system, threads=4), lookups(system, threads=1)
    asking = [pictures.addresses(name) for name in names]
    await until(lambda: len(system.asked) == 4, "four are looked up")
    assert await others.addresses("host.test") == BOTH
    assert len(system.asked) == 5
    for one in asking:
        one.addErrback(lambda failure: failure.trap(CancelledError)).cancel()


@ensureDeferred
async def test_a_failure_of_a_function_is_the_callers(system: System) -> None:
    threads = Threads(reactor, 1, "test")
    with pytest.raises(ZeroDivisionError):
        await threads.call(divmod, 1, 0)
    assert await threads.call(divmod, 7, 2) == (3, 1)


@ensureDeferred
async def test_a_system_without_threads_costs_no_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(self: Any) -> None:
        raise RuntimeError("can't start new thread")

    threads = Threads(reactor, 1, "test")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", none_left)
        with pytest.raises(RuntimeError):
            await threads.call(divmod, 1, 1)
    assert await threads.call(divmod, 7, 2) == (3, 1)


@define
class Receiver:
    """What a resolver says, as Twisted asks it."""

    addresses: list[Any] = field(factory=list)
    resolution: Any = None
    done: Deferred[None] = field(factory=Deferred)

    def resolutionBegan(self, resolution: Any) -> None:
        self.resolution = resolution

    def addressResolved(self, address: Any) -> None:
        self.addresses.append(address)

    def resolutionComplete(self) -> None:
        self.done.callback(None)


@ensureDeferred
async def test_endpoints_can_use_it(system: System) -> None:
    receiver = Receiver()
    resolver = HostnameResolver(lookups(system))
    resolver.resolveHostName(receiver, "host.test", 80)
    await receiver.done
    assert receiver.resolution.name == "host.test"
    assert receiver.addresses == [
        IPv6Address("TCP", "2001:db8::1", 80),
        IPv4Address("TCP", "192.0.2.1", 80),
    ]
    receiver = Receiver()
    resolver.resolveHostName(receiver, "host.test", 80, [IPv4Address])
    await receiver.done
    assert receiver.addresses == [IPv4Address("TCP", "192.0.2.1", 80)]
    system.slow("slow.test")
    receiver = Receiver()
    resolver.resolveHostName(receiver, "slow.test", 80)
    receiver.resolution.cancel()
    await receiver.done
    assert receiver.addresses == []
