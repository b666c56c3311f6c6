"""Addresses of this machine and its link, in every coat."""

import socket

import pytest

from mirror.upstream.addresses import AddressGate, AddressInfo, AddressRefused, address_kind


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.200.3.4", "loopback"),
        ("0.0.0.0", "loopback"),
        ("0.1.2.3", "loopback"),
        ("::1", "loopback"),
        ("::", "loopback"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::7f00:1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("fd00:ec2::254", "link-local"),
        ("10.0.0.1", None),
        ("192.168.1.1", None),
        ("fd00::1", None),
        ("8.8.8.8", None),
        ("2001:db8::1", None),
        ("registry.example", None),
        ("", None),
    ],
)
def test_kinds_of_addresses(address: str, kind: str | None) -> None:
    assert address_kind(address) == kind


def info(address: str) -> AddressInfo:
    return (socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 1))


def test_a_gate_lets_through_what_the_upstream_itself_is_on() -> None:
    gate = AddressGate()
    with pytest.raises(AddressRefused):
        gate.checked_socket(info("127.0.0.1"))
    assert not gate.allows_host("localhost")
    gate.own_socket(info("127.0.0.1")).close()
    gate.checked_socket(info("127.0.0.1")).close()
    assert gate.allows_host("localhost")
    assert not gate.allows_host("169.254.169.254")


@pytest.mark.parametrize("addresses", [["127.0.0.1", "192.0.2.1"], ["192.0.2.1", "127.0.0.1", "127.0.0.1"]])
def test_a_name_that_leads_here_and_elsewhere_opens_nothing(addresses: list[str]) -> None:
    gate = AddressGate()
    gate.note_host("registry.example")
    for address in addresses:
        gate.own_socket(info(address)).close()
    with pytest.raises(AddressRefused):
        gate.checked_socket(info("127.0.0.1"))
    assert not gate.allows_host("127.0.0.1")
