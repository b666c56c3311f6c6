"""config.yaml, the command line's options and the defaults, as one frozen and checked `Config`."""

from mirror.config.errors import ConfigError, Problem
from mirror.config.load import load
from mirror.config.models import Cache, Config, Endpoint, LayoutRoot, Repositories, Tls, Upstream
from mirror.config.types import Address

__all__ = [
    "Address",
    "Cache",
    "Config",
    "ConfigError",
    "Endpoint",
    "LayoutRoot",
    "Problem",
    "Repositories",
    "Tls",
    "Upstream",
    "load",
]
