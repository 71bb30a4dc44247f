"""Where a client is: what proxies in front tell of it, and what upstreams are told. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence

from attrs import frozen

from gemproxy.chat.request import Headers

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_FOR, _PROTO, _HOST = b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"
_PREFIX = b"x-forwarded-"
# By these, servers behind a proxy tell a client's address too (RFC 7239, nginx, Cloudflare).
_OTHERS = frozenset(
    {b"forwarded", b"x-real-ip", b"x-client-ip", b"cf-connecting-ip", b"true-client-ip"}
)


@frozen
class TrustedProxies:
    """
    The addresses whose word on where a request comes from is believed.

    @ivar networks: none by default, so that no client can pass for another.
    """

    networks: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, names: Iterable[str]) -> TrustedProxies:
        """@param names: addresses, and networks as C{10.0.0.0/8}."""
        return cls(tuple(ipaddress.ip_network(name, strict=False) for name in names))

    def trusts(self, peer: str) -> bool:
        """@param peer: the address of a client; empty if it has none."""
        if not self.networks:
            return False
        address = _address_in(peer)
        return address is not None and any(address in network for network in self.networks)

    def client_of(self, peer: str, said: Sequence[bytes]) -> str:
        """
        The address of a client: the last one in C{X-Forwarded-For} that is not a trusted proxy's.
        What stands before it may be the client's own invention.

        @param peer: the address that the connection comes from; empty if it has none.
        @param said: the values of the C{X-Forwarded-For} headers.
        """
        client = peer
        for word in reversed(b",".join(said).split(b",")):
            if not self.trusts(client):
                break
            address = _address_in(word.decode("latin-1").strip())
            if address is None:
                break
            client = str(address)
        return client

    def knows_client_of(self, peer: str, names: Iterable[bytes]) -> bool:
        """
        Whether L{client_of} says where a request comes from, and not just which proxy it came by.

        @param names: those of its headers, in small letters.
        """
        return self.trusts(peer) or not any(
            name.startswith(_PREFIX) or name in _OTHERS for name in names
        )

    def forwarded(
        self,
        headers: Iterable[tuple[bytes, bytes]],
        peer: str,
        scheme: bytes,
        host: bytes | None,
    ) -> Headers:
        """
        A client's headers, with those of forwarding as the upstream shall have them.

        @param scheme: C{http} or C{https}, as it reached this proxy.
        @param host: the C{Host} header.
        """
        is_trusted = self.trusts(peer)
        kept: list[tuple[bytes, bytes]] = []
        said: dict[bytes, list[bytes]] = {}
        for name, value in headers:
            key = name.lower()
            if not key.startswith(_PREFIX) and key not in _OTHERS:
                kept.append((name, value))
            elif is_trusted and key in (_FOR, _PROTO, _HOST):
                said.setdefault(key, []).append(value)
            elif is_trusted:
                kept.append((name, value))
        addresses = [*said.get(_FOR, ()), *([peer.encode()] if peer else [])]
        proto, hosts = said.get(_PROTO, [scheme]), said.get(_HOST, [host] if host else [])
        for name, values in (
            (b"X-Forwarded-For", addresses),
            (b"X-Forwarded-Proto", proto),
            (b"X-Forwarded-Host", hosts),
        ):
            if values:
                kept.append((name, b", ".join(values)))
        return tuple(kept)


def _address_in(text: str) -> Address | None:
    """The IP address in a text, which may have a port; None if it is something else."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    # A client of IPv4 at a port of IPv6.
    return getattr(address, "ipv4_mapped", None) or address


NO_PROXIES = TrustedProxies()
