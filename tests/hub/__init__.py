"""A real registry over HTTP, in memory, that can fail in every way that an upstream can."""

from tests.hub.auth import Basic, Bearer, TokenIssuer, TokenService
from tests.hub.cdn import Cdn
from tests.hub.content import Image
from tests.hub.delivery import Logged
from tests.hub.faults import (
    BlackHole,
    Corrupt,
    Drip,
    EndlessHeaders,
    EndlessPages,
    NoDigest,
    NoLength,
    Oversized,
    Redirect,
    RedirectLoop,
    Reset,
    Stall,
    Status,
    Truncate,
    WrongLength,
)
from tests.hub.proxy import Proxy
from tests.hub.registry import Hub
from tests.hub.server import Server
from tests.hub.tls import Authority
from tests.hub.waiting import eventually

__all__ = [
    "Authority",
    "Basic",
    "Bearer",
    "BlackHole",
    "Cdn",
    "Corrupt",
    "Drip",
    "EndlessHeaders",
    "EndlessPages",
    "Hub",
    "Image",
    "Logged",
    "NoDigest",
    "NoLength",
    "Oversized",
    "Proxy",
    "Redirect",
    "RedirectLoop",
    "Reset",
    "Server",
    "Stall",
    "Status",
    "TokenIssuer",
    "TokenService",
    "Truncate",
    "WrongLength",
    "eventually",
]
