"""
Which IP addresses belong to hosts of the public Internet. Pure.

Python's C{ipaddress} has tables of its own, which differ between its versions and lack what was
registered since. These are IANA's, as of 2025-10-09, so that every Python decides alike:
https://www.iana.org/assignments/iana-ipv4-special-registry and iana-ipv6-special-registry.
"""

from __future__ import annotations

import ipaddress
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

# All entries, even those that are globally reachable: they belong to infrastructure of networks,
# such as the next router that translates ports, and none to a host that serves something.
SPECIAL_IPV4 = {
    "0.0.0.0/8": "this network, RFC 791",
    "0.0.0.0/32": "this host, RFC 1122",
    "10.0.0.0/8": "private use, RFC 1918",
    "100.64.0.0/10": "shared address space, RFC 6598",
    "127.0.0.0/8": "loopback, RFC 1122",
    "169.254.0.0/16": "link local, RFC 3927",
    "172.16.0.0/12": "private use, RFC 1918",
    "192.0.0.0/24": "protocol assignments, RFC 6890",
    "192.0.0.0/29": "IPv4 service continuity, RFC 7335",
    "192.0.0.8/32": "dummy address, RFC 7600",
    "192.0.0.9/32": "port control anycast, RFC 7723",
    "192.0.0.10/32": "TURN anycast, RFC 8155",
    "192.0.0.170/32": "NAT64 discovery, RFC 8880",
    "192.0.0.171/32": "NAT64 discovery, RFC 8880",
    "192.0.2.0/24": "documentation, RFC 5737",
    "192.31.196.0/24": "AS112, RFC 7535",
    "192.52.193.0/24": "AMT, RFC 7450",
    "192.88.99.0/24": "6to4 relay anycast, deprecated, RFC 7526",
    "192.88.99.2/32": "6a44 relay anycast, RFC 6751",
    "192.168.0.0/16": "private use, RFC 1918",
    "192.175.48.0/24": "AS112, RFC 7534",
    "198.18.0.0/15": "benchmarks, RFC 2544",
    "198.51.100.0/24": "documentation, RFC 5737",
    "203.0.113.0/24": "documentation, RFC 5737",
    # A registry of its own.
    "224.0.0.0/4": "multicast, RFC 5771",
    "240.0.0.0/4": "reserved, RFC 1112",
    "255.255.255.255/32": "limited broadcast, RFC 919",
}
# Without the forms that contain an IPv4 address, which is what counts: see _inner_addresses.
SPECIAL_IPV6 = {
    "::/128": "unspecified, RFC 4291",
    "::1/128": "loopback, RFC 4291",
    # An IPv4 address is in there too, in one of four places (RFC 6052) that only its network knows.
    "64:ff9b:1::/48": "translation for local use, RFC 8215",
    "100::/64": "discarded, RFC 6666",
    "100:0:0:1::/64": "dummy prefix, RFC 9780",
    "2001::/23": "protocol assignments, RFC 2928",
    "2001:1::1/128": "port control anycast, RFC 7723",
    "2001:1::2/128": "TURN anycast, RFC 8155",
    "2001:1::3/128": "DNS-SD registration anycast, RFC 9665",
    "2001:2::/48": "benchmarks, RFC 5180",
    "2001:3::/32": "AMT, RFC 7450",
    "2001:4:112::/48": "AS112, RFC 7535",
    "2001:10::/28": "ORCHID, deprecated, RFC 4843",
    "2001:20::/28": "ORCHIDv2, RFC 7343",
    "2001:30::/28": "drone identifiers, RFC 9374",
    "2001:db8::/32": "documentation, RFC 3849",
    "2620:4f:8000::/48": "AS112, RFC 7534",
    "3fff::/20": "documentation, RFC 9637",
    "5f00::/16": "segment routing, RFC 9602",
    "fc00::/7": "unique local, RFC 4193",
    "fe80::/10": "link local, RFC 4291",
}

_SPECIAL: dict[int, list[IPv4Network] | list[IPv6Network]] = {
    4: [IPv4Network(block) for block in SPECIAL_IPV4],
    6: [IPv6Network(block) for block in SPECIAL_IPV6],
}
# All that is assigned to hosts (https://www.iana.org/assignments/ipv6-address-space): without
# multicast, site-local addresses, and what may get a purpose one day.
_GLOBAL_UNICAST = IPv6Network("2000::/3")
# The prefix by which IPv4 hosts are reached from networks without IPv4 (RFC 6052).
_NAT64 = IPv6Network("64:ff9b::/96")
_LOW_32_BITS = 0xFFFFFFFF


def is_public_address(address: str) -> bool:
    """
    Whether an IP address is that of a host on the public Internet.

    @raise ValueError: it is no IP address.
    """
    ip = ipaddress.ip_address(address)
    if isinstance(ip, IPv6Address):
        inner = _inner_addresses(ip)
        if inner:
            return all(map(_is_public, inner))
        return ip in _GLOBAL_UNICAST and _is_public(ip)
    return _is_public(ip)


def _is_public(ip: IPv4Address | IPv6Address) -> bool:
    return not any(ip in block for block in _SPECIAL[ip.version])


def _inner_addresses(ip: IPv6Address) -> list[IPv4Address]:
    """Where packets to an IPv6 address go in fact, if it stands for IPv4 addresses."""
    if ip.ipv4_mapped is not None:
        # ::ffff:0:0/96, RFC 4291
        return [ip.ipv4_mapped]
    if ip in _NAT64:
        return [IPv4Address(int(ip) & _LOW_32_BITS)]
    if ip.sixtofour is not None:
        # 2002::/16, RFC 3056
        return [ip.sixtofour]
    # 2001::/32, RFC 4380: the server and the client.
    return [] if ip.teredo is None else list(ip.teredo)
