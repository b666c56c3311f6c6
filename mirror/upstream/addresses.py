"""Which addresses a redirect may lead to.

A hostile upstream could send us to services that only this machine or its cloud can reach. So what a redirect to
another host connects to is checked where the socket is made: after the name was resolved, so that a name which
resolves differently the second time (DNS rebinding) gains nothing.
"""

import errno
import socket
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Any

AddressInfo = tuple[Any, ...]

# IPv4 addresses in an IPv6 coat: NAT64 (RFC 6052) is routed to the IPv4 one.
_NAT64 = IPv6Network("64:ff9b::/96")
# Some systems route all of it to this machine; the unspecified address is the first of it.
_THIS_NETWORK = IPv4Network("0.0.0.0/8")
# The metadata service of a large cloud, in IPv6; its IPv4 one is link-local.
_METADATA = frozenset({IPv6Address("fd00:ec2::254")})


class AddressRefused(OSError):
    """The address is one of this machine or its link, and the upstream is not."""

    def __init__(self) -> None:
        super().__init__(errno.EACCES, "an address of this machine or its link, which a redirect must not lead to")


def address_kind(text: str) -> str | None:
    """`loopback`, `link-local`, or None for any other address and for what is no address."""
    try:
        address: IPv4Address | IPv6Address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, IPv6Address):
        if address in _METADATA:
            return "link-local"
        if address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        elif address in _NAT64:
            address = IPv4Address(int(address) & 0xFFFFFFFF)
    if address.is_loopback or address.is_unspecified or address in _THIS_NETWORK:
        return "loopback"
    return "link-local" if address.is_link_local else None


class AddressGate:
    """Knows on what kind of addresses the endpoint is; a redirect may lead to that kind, and to ordinary ones.

    The endpoint's own name may be a stranger's, too. Once it has led to an ordinary address, nothing that it led to
    before or leads to later opens this machine to redirects.
    """

    def __init__(self) -> None:
        self._own: str | None = None
        self._connected = False

    def note_host(self, host: str) -> None:
        """Take a literal address, or `localhost`, in the endpoint's URL for its own."""
        self._own = _host_kind(host)

    def allows_host(self, host: str) -> bool:
        """Whether a redirect to this literal address, or `localhost`, may be followed; other names may."""
        return _host_kind(host) in (None, self._own)

    def own_socket(self, info: AddressInfo) -> socket.socket:
        """Socket factory for the endpoint itself."""
        kind = address_kind(str(info[4][0]))
        if kind != self._own:
            self._own = None if self._connected else kind
        self._connected = True
        return socket.socket(family=info[0], type=info[1], proto=info[2])

    def checked_socket(self, info: AddressInfo) -> socket.socket:
        """Socket factory for other hosts. Raises AddressRefused."""
        if address_kind(str(info[4][0])) not in (None, self._own):
            raise AddressRefused
        return socket.socket(family=info[0], type=info[1], proto=info[2])


def _host_kind(host: str) -> str | None:
    name = host.lower().rstrip(".")
    return "loopback" if name == "localhost" or name.endswith(".localhost") else address_kind(name)
