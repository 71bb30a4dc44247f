"""What an upstream is told of a client: its address, and how it reached this proxy. No I/O."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from attrs import frozen

from gemproxy.chat.request import Headers

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
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return False
        # A client of IPv4 at a port of IPv6.
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self.networks)

    def forwarded(self, headers: Headers, peer: str, scheme: bytes, host: bytes | None) -> Headers:
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


NO_PROXIES = TrustedProxies()
