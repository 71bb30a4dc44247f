"""Which addresses pictures may be fetched from, as a pure call."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemproxy.http.public_addresses import SPECIAL_IPV4, SPECIAL_IPV6, is_public_address
from tests.tables import each

PUBLIC = [
    "1.1.1.1",
    "8.8.8.8",
    "9.255.255.255",
    "100.63.255.255",
    "100.128.0.1",
    "172.15.255.255",
    "172.32.0.1",
    "191.255.255.255",
    "192.0.1.1",
    "192.88.98.255",
    "192.88.100.0",
    "198.17.255.255",
    "198.20.0.1",
    "223.255.255.255",
    "2606:4700:4700::1111",
    "2001:200::1",
    "2001:4860:4860::8888",
    "2003::1",
    "3ffe::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
    "2002:808:808::1",
]
NOT_PUBLIC = [
    "0.0.0.0",
    "0.1.2.3",
    "10.0.0.1",
    "100.64.0.1",
    "100.127.255.255",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "172.31.255.255",
    "192.0.0.1",
    "192.0.0.9",
    "192.0.0.192",
    "192.0.2.1",
    "192.88.99.1",
    "192.168.1.1",
    "198.18.0.1",
    "198.19.255.255",
    "224.0.0.1",
    "233.252.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::7f00:1",
    "::808:808",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "fc00::1",
    "fd00:ec2::254",
    "ff02::1",
    "ff0e::1",
    "100::1",
    "100:0:0:1::1",
    "2001:1::1",
    "2001:10::1",
    "2001:db8::1",
    "3fff::1",
    "3fff:fff::1",
    "4000::1",
    "5f00::1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "::ffff:192.0.0.192",
    "64:ff9b::7f00:1",
    "64:ff9b::a00:1",
    "64:ff9b:1::7f00:1",
    "64:ff9b:1::808:808",
    "64:ff9b:1:a00:0:100:808:808",
    "2002:7f00:1::1",
    "2002:a00:1::808:808",
    # Of Teredo, the client and the server.
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "2001:0:7f00:1:8000:63bf:f7f7:f7f7",
]


@each("address", PUBLIC)
def test_hosts_of_the_internet_are_public(address: str):
    assert is_public_address(address)


@each("address", NOT_PUBLIC)
def test_what_has_a_special_purpose_is_not(address: str):
    assert not is_public_address(address)


@each("block", [*SPECIAL_IPV4, *SPECIAL_IPV6])
def test_each_entry_counts_from_its_first_to_its_last_address(block: str):
    network = ipaddress.ip_network(block)
    assert not is_public_address(str(network[0]))
    assert not is_public_address(str(network[-1]))


@each("source", [*SPECIAL_IPV4.values(), *SPECIAL_IPV6.values()])
def test_each_entry_names_its_rfc(source: str):
    assert re.fullmatch(r".+, RFC \d+", source)


@given(st.ip_addresses(v=4))
def test_a_form_of_an_ipv4_address_is_as_public_as_it(ip: ipaddress.IPv4Address):
    number = int(ip)
    for form in (0xFFFF << 32 | number, 0x64FF9B << 96 | number, 0x2002 << 112 | number << 80):
        assert is_public_address(str(ipaddress.IPv6Address(form))) is is_public_address(str(ip))


@pytest.mark.parametrize("text", ["", "localhost", "127.1", "1.2.3.4.5", "12345"])
def test_what_is_no_address_is_an_error(text: str):
    with pytest.raises(ValueError, match="address"):
        is_public_address(text)
