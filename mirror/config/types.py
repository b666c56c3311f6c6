"""The kinds of value that keys take: each reads what YAML gives, strictly, and says what it wanted instead.

A value from the environment is text; where the whole scalar was one variable, it is also read as the number,
or true or false, that the key takes.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar
from urllib.parse import SplitResult, urlsplit

import yaml
from pydantic import BeforeValidator, PlainSerializer, PlainValidator, SecretStr, ValidationInfo

from mirror.config.units import (
    DURATION_WANTED,
    SIZE_WANTED,
    format_duration,
    format_size,
    parse_duration,
    parse_size,
)
from mirror.config.values import MASK, EnvironmentText, Expected, mask_url
from mirror.oci.names import Host, Repository, is_repository, normalize_host, parse_host

T = TypeVar("T")

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_HOST_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_.])?|\[[0-9A-Fa-f:.]+\]")
_GLOB = re.compile(r"[A-Za-z0-9._/:@+*?\[\]!-]+")
_HELPER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

HOST_WANTED = (
    "a host with a dot or a port, such as registry.example or registry:5000 "
    "(without either, the first part of a name belongs to the repository)"
)


class Address(NamedTuple):
    """Where to listen; `host` is without brackets, `port` 0 takes a free one."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise Expected("a string, in quotes" if isinstance(value, bool | int | float) else "a string")
    if not value:
        raise Expected("a string that is not empty")
    return str(value)


def secret(value: Any) -> SecretStr:
    return value if isinstance(value, SecretStr) else SecretStr(text(value))


def flag(value: Any) -> bool:
    if isinstance(value, EnvironmentText) and value.whole:
        value = yaml.SafeLoader.bool_values.get(value.lower())
    if not isinstance(value, bool):
        raise Expected("true or false")
    return value


def whole_number(minimum: int) -> Callable[[Any], int]:
    """A reader of whole numbers from `minimum` up."""

    def read(value: Any) -> int:
        if isinstance(value, EnvironmentText) and value.whole and _INTEGER.fullmatch(value):
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or value < minimum:
            raise Expected(f"a whole number, {minimum} or more")
        return value

    return read


def worker_count(value: Any) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    try:
        return whole_number(1)(value)
    except Expected:
        raise Expected("a whole number, 1 or more, or auto") from None


def size_bytes(value: Any) -> int:
    """Bytes, at least one."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise Expected(SIZE_WANTED)
    found = parse_size(value)
    if not found:
        raise Expected("a size above zero")
    return found


def duration_seconds(value: Any) -> float:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise Expected(DURATION_WANTED)
    return parse_duration(value)


def timeout_seconds(value: Any) -> float:
    """A duration above zero."""
    seconds = duration_seconds(value)
    if not seconds:
        raise Expected("a duration above zero")
    return seconds


def address(value: Any) -> Address:
    """`host:port`, the host of an IPv6 address in brackets. Raises Expected."""
    host, colon, port = text(value).rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    is_ipv6 = bare != host
    if (
        not colon
        or not _HOST_NAME.fullmatch(host)
        or not re.fullmatch(r"[0-9]{1,5}", port)
        or (":" in host) != is_ipv6
    ):
        raise Expected("an address and a port, such as 127.0.0.1:5000 or [::1]:5000")
    if int(port) > 65535:
        raise Expected("a port of at most 65535")
    return Address(bare, int(port))


def registry_host(value: Any) -> Host:
    """A host as names spell it, in the form in which hosts compare."""
    host = parse_host(text(value))
    if host is None or not _port_is_valid(host):
        raise Expected(HOST_WANTED)
    return host


def realm_host(value: Any) -> Host:
    """The host of a token service: any that a URL can have."""
    found = text(value)
    host, _, port = found.rpartition(":") if re.search(r":[0-9]+$", found) else (found, "", "")
    if not _HOST_NAME.fullmatch(host) or not _port_is_valid(f":{port}" if port else host):
        raise Expected("a host without scheme or path, such as auth.example or auth.example:8443")
    return normalize_host(found)


def _port_is_valid(host: str) -> bool:
    port = re.search(r":([0-9]+)$", host)
    return port is None or host.endswith("]") or 0 < int(port[1]) <= 65535


def prefix(value: Any) -> Repository:
    found = text(value)
    if not is_repository(found):
        raise Expected("a repository name: lower case, digits and ._- between slashes, such as team/base")
    return Repository(found)


def glob(value: Any) -> str:
    found = text(value)
    if not _GLOB.fullmatch(found):
        raise Expected("a name, in which * and ? stand for others, such as library/*")
    return found


def helper_name(value: Any) -> str:
    found = text(value)
    if not _HELPER.fullmatch(found):
        raise Expected("the name behind docker-credential-, such as ecr-login")
    return found


def endpoint_url(value: Any) -> str:
    """An upstream's URL, without a slash at its end."""
    found = text(value)
    parts = _split(found)
    if parts is None or parts.scheme not in ("http", "https"):
        raise Expected("a URL that begins with https:// or http://")
    if "@" in parts.netloc:
        raise Expected("a URL without user and password, which have keys of their own")
    if "?" in found or "#" in found:
        raise Expected("a URL without ? or #")
    return found.rstrip("/")


def proxy_url(value: Any) -> SecretStr:
    if isinstance(value, SecretStr):
        return value
    found = text(value)
    parts = _split(found)
    if parts is None or parts.scheme != "http":
        raise Expected("a URL that begins with http://, such as http://proxy.example:3128")
    return SecretStr(found)


def _split(url: str) -> SplitResult | None:
    """The parts of a URL that names a host, with a port that exists."""
    try:
        parts = urlsplit(url)
        valid = parts.port is None or parts.port > 0
    except ValueError:
        return None
    host = f"[{parts.hostname}]" if parts.hostname and ":" in parts.hostname else parts.hostname
    if not valid or not host or not _HOST_NAME.fullmatch(host) or re.search(r"[\s\\\x00-\x1f\x7f]", url):
        return None
    return parts


def path_from(value: Any, info: ValidationInfo) -> Path:
    """Relative to the folder of the configuration, which the context holds; `~/` is the user's home."""
    found = value if isinstance(value, Path) else Path(text(value))
    if "\0" in str(found):
        raise Expected("a path without NUL")
    try:
        found = found.expanduser()
    except RuntimeError:
        raise Expected("a path below a home that is known") from None
    return Path(info.context["folder"] if info.context else Path.cwd(), found)


def readable_file(value: Any, info: ValidationInfo) -> Path:
    """A file that exists and opens for reading; it is not kept open."""
    path = path_from(value, info)
    if not path.is_file():
        raise Expected(f"a file; there is none at {path}")
    if not os.access(path, os.R_OK):
        raise Expected(f"a file that this user may read; {path} is not")
    return path


def docker_config(value: Any, info: ValidationInfo) -> Path:
    """`true` is where `docker login` writes."""
    if value is False or not isinstance(value, bool | str | Path):
        raise Expected("the path of docker's config.json, or true for ~/.docker/config.json")
    return readable_file("~/.docker/config.json" if value is True else value, info)


def prefetch(value: Any) -> tuple[Literal["referrers"], ...]:
    if value in ("none", "referrers"):
        return () if value == "none" else ("referrers",)
    if not isinstance(value, list | tuple) or any(entry != "referrers" for entry in value):
        raise Expected("none, referrers, or a list of these")
    return ("referrers",) if value else ()


def _listed(value: Any) -> Any:
    """Lists become tuples; a key with nothing behind it is an empty list."""
    return () if value is None else tuple(value) if isinstance(value, list) else value


Text = Annotated[str, PlainValidator(text)]
Secret = Annotated[SecretStr, PlainValidator(secret), PlainSerializer(lambda _: MASK)]
Flag = Annotated[bool, PlainValidator(flag)]
Count = Annotated[int, PlainValidator(whole_number(0))]
Positive = Annotated[int, PlainValidator(whole_number(1))]
Workers = Annotated[int | Literal["auto"], PlainValidator(worker_count)]
Size = Annotated[int, PlainValidator(size_bytes), PlainSerializer(format_size)]
Duration = Annotated[float, PlainValidator(duration_seconds), PlainSerializer(format_duration)]
Timeout = Annotated[float, PlainValidator(timeout_seconds), PlainSerializer(format_duration)]
ListenAddress = Annotated[Address, PlainValidator(address), PlainSerializer(str)]
RegistryHost = Annotated[Host, PlainValidator(registry_host)]
RealmHost = Annotated[Host, PlainValidator(realm_host)]
Prefix = Annotated[Repository, PlainValidator(prefix)]
Glob = Annotated[str, PlainValidator(glob)]
HelperName = Annotated[str, PlainValidator(helper_name)]
EndpointUrl = Annotated[str, PlainValidator(endpoint_url)]
ProxyUrl = Annotated[
    SecretStr, PlainValidator(proxy_url), PlainSerializer(lambda value: mask_url(value.get_secret_value()))
]
AnyPath = Annotated[Path, PlainValidator(path_from), PlainSerializer(str)]
ReadableFile = Annotated[Path, PlainValidator(readable_file), PlainSerializer(str)]
DockerConfig = Annotated[Path, PlainValidator(docker_config), PlainSerializer(str)]
Prefetch = Annotated[tuple[Literal["referrers"], ...], PlainValidator(prefetch), PlainSerializer(list)]
ListOf = Annotated[tuple[T, ...], BeforeValidator(_listed)]
