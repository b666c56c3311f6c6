"""What only several keys together show to be wrong."""

import os
from collections.abc import Collection
from pathlib import Path

from mirror.config.document import Document
from mirror.config.models import Config, Upstream
from mirror.config.types import registry_host
from mirror.config.values import Expected, KeyPath, describe
from mirror.oci.names import Host

# Each of these says on its own who asks; two of them would leave open which one counts.
_IDENTITIES = ("username", "token", "docker_config", "credential_helper")


def check_hosts(document: Document) -> None:
    """Upstreams are keyed by hosts, each once in whatever spelling. Works on what is written."""
    first: dict[Host, str] = {}
    written = document.at(("upstreams",))
    for key in written if isinstance(written, dict) else ():
        path = ("upstreams", key)
        try:
            host = registry_host(key)
        except Expected as error:
            document.problem(path, describe(key, path), str(error))
            continue
        if host in first:
            line = document.lines.get(("upstreams", first[host]))
            found = f"{host} again, after line {line}" if line else f"{host} again"
            document.problem(path, found, "each host once, in whatever spelling")
        first.setdefault(host, key)


def check(config: Config, document: Document, broken: Collection[KeyPath]) -> None:
    """Note in `document` what keys contradict each other.

    `config` is what it says without what is `broken`: nothing is concluded from the absence of that.
    """
    _check_folders(config, document, broken)
    _check_names(config, document)
    written = document.at(("upstreams",))
    for key in written if isinstance(written, dict) else ():
        path = ("upstreams", key)
        try:
            upstream = config.upstreams.get(registry_host(key))
        except Expected:
            continue
        if upstream is not None:
            _check_credentials(upstream, document, path, broken)
            _check_endpoints(upstream, document, path, broken)


def _touches(broken: Collection[KeyPath], *paths: KeyPath) -> bool:
    """Whether something is broken at one of `paths`, or around or below it."""
    return any(path[: len(bad)] == bad or bad[: len(path)] == path for path in paths for bad in broken)


def _check_folders(config: Config, document: Document, broken: Collection[KeyPath]) -> None:
    """No folder is searched twice, and the cache is not searched at all."""
    cache_path: KeyPath = ("cache", "path")
    cache = _real(config.cache.path)
    if cache.exists() and not cache.is_dir():
        document.problem(cache_path, f"{config.cache.path}, which is no folder", "a folder")
    first: dict[Path, int] = {}
    written = document.at(("layouts",))
    places = range(len(written)) if isinstance(written, list) else ()
    kept = [index for index in places if not _touches(broken, ("layouts", index))]
    for index, root in zip(kept, config.layouts, strict=True):
        path = ("layouts", index, "path")
        folder = _real(root.path)
        if folder in first:
            document.problem(path, f"{root.path}, which is layouts[{first[folder]}] too", "each folder once")
        if first.setdefault(folder, index) != index or _touches(broken, cache_path):
            continue
        if folder == cache or folder in cache.parents:
            found = f"{config.cache.path}, inside the layouts of {root.path}"
            document.problem(cache_path, found, "a folder outside: the cache would be searched for layouts")
        elif cache in folder.parents:
            document.problem(path, f"{root.path}, inside the cache {config.cache.path}", "a folder outside the cache")


def _check_names(config: Config, document: Document) -> None:
    """A name of this mirror's own is taken off what clients ask for, so nothing of an upstream called so is found."""
    written = document.at(("names",))
    for index, name in enumerate(written if isinstance(written, list) else ()):
        try:
            host = registry_host(name)
        except Expected:
            continue
        if host in config.upstreams:
            document.problem(("names", index), f"{host}, which is an upstream too", "names of this mirror alone")


def _real(path: Path) -> Path:
    # Unlike Path.resolve, realpath takes a cycle of links as it is: the scan reports it.
    return Path(os.path.realpath(path))


def _check_credentials(upstream: Upstream, document: Document, path: KeyPath, broken: Collection[KeyPath]) -> None:
    """Whole, one way only, and never given away unknowingly."""
    credentials = upstream.credentials
    passwords = [key for key in ("password", "password_file") if key in credentials]
    if not _touches(broken, *((*path, key) for key in ("username", "password", "password_file"))):
        if upstream.username is not None and not passwords:
            document.problem((*path, "username"), "a username alone", "password or password_file beside it")
        if passwords and upstream.username is None:
            document.problem((*path, passwords[0]), f"a {passwords[0]} alone", "username beside it")
    if len(passwords) > 1:
        document.problem((*path, "password_file"), "password and password_file", "one of them")
    identities = [key for key in _IDENTITIES if key in credentials]
    if len(identities) > 1:
        document.problem((*path, identities[1]), " and ".join(identities), "one of them")
    certified = upstream.client_cert is not None or _touches(broken, (*path, "client_cert"))
    if upstream.client_key is not None and not certified:
        document.problem((*path, "client_key"), "a client_key alone", "client_cert beside it")
    if credentials and not upstream.allow_anonymous and not _touches(broken, (*path, "allow_anonymous")):
        document.problem(
            path,
            f"credentials ({', '.join(credentials)}) without allow_anonymous",
            "`allow_anonymous: true` beside them: whoever reaches this mirror will read what they open",
        )


def _check_endpoints(upstream: Upstream, document: Document, path: KeyPath, broken: Collection[KeyPath]) -> None:
    """Credentials do not travel in clear unknowingly, and there is one to ask for everything."""
    here = (*path, "endpoints")
    if _touches(broken, here):
        return
    insecure = upstream.insecure or _touches(broken, (*path, "insecure"))
    for index, endpoint in enumerate(upstream.endpoints):
        if endpoint.url.lower().startswith("http://") and upstream.credentials and not insecure:
            document.problem(
                (*here, index),
                f"{endpoint.url}, over which credentials would travel in clear",
                "https://, or `insecure: true` in this upstream",
            )
    offered = {capability for endpoint in upstream.endpoints for capability in endpoint.capabilities}
    for missing in sorted({"resolve", "pull"} - offered):
        document.problem(here, f"no endpoint that can {missing}", f"{missing} among the capabilities of one at least")
