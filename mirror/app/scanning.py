"""What to scan, as configured; light to load, since the scan begins with it."""

from mirror.config import Config
from mirror.oci.names import normalize_host
from mirror.sources.scan_settings import Root, ScanSettings


def scan_settings(config: Config) -> ScanSettings:
    """What to scan, and where the slow work on archives is remembered."""
    return ScanSettings(
        [Root(str(root.path), root.prefix, root.host, root.coalesce) for root in config.layouts],
        own_hosts(config),
        str(config.cache.path / "archives.db"),
        str(config.cache.path / "places.db"),
        str(config.cache.path / "unpacked"),
        config.unpack_max_bytes,
        config.refresh_seconds,
        config.log_format,
    )


def own_hosts(config: Config) -> frozenset[str]:
    """The names of this mirror itself: those configured, and the address that it listens on."""
    listen = config.listen
    here = {str(listen)} if listen.port else set()
    if listen.port and listen.host in ("127.0.0.1", "::1", "localhost"):
        here |= {f"localhost:{listen.port}", f"127.0.0.1:{listen.port}"}
    return frozenset(normalize_host(name) for name in here | set(config.names))
