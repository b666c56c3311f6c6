"""Running a command: its module is loaded for it alone; what it raises becomes an exit status."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from mirror import logs
from mirror.config import Config, ConfigError, load

if TYPE_CHECKING:
    from mirror.sources.scan_process import ScanProcess

SEARCH_OPTIONS = (
    *("q", "kind", "type", "platform", "digest", "since", "until", "created_since", "created_until"),
    *("sort", "order"),
)


class Overrides(TypedDict):
    """What the command line says instead of the configuration file."""

    layouts: Sequence[str]
    cache: str | None
    listen: str | None
    workers: str | None


def run(options: argparse.Namespace, scans: "ScanProcess | None" = None) -> int:
    """Run the command that the options name and return its exit status. `scans` looks for what `serve` serves."""
    try:
        status = _load_and_run(options, scans)
        # Here, rather than at exit, where nobody could answer for it.
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_output()  # its reader had enough
        return 0
    except KeyboardInterrupt:
        return 130
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except OSError as error:
        # A folder that cannot be written, a full disk: it names the file, where there is one.
        print(f"mirror {options.command}: {error}", file=sys.stderr)
        _drop_output()
        return 2
    return status


def _drop_output() -> None:
    """What could not be written must not fail once more at exit."""
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def _load_and_run(options: argparse.Namespace, scans: "ScanProcess | None") -> int:
    overrides: Overrides = {
        "layouts": options.layouts or (),
        "cache": options.cache,
        "listen": getattr(options, "listen", None),
        "workers": getattr(options, "workers", None),
    }
    if options.command == "check-config":
        from mirror.cli import check_config

        return check_config.run(options.config, **overrides, as_json=options.json)
    config = load(options.config, **overrides)
    if options.log_format is not None:
        config = config.model_copy(update={"log_format": options.log_format})
    logs.set_up(config.log_format)
    if scans is not None:
        from mirror.cli import serve

        return serve.run(config, scans)
    return _run(options, config)


def _run(options: argparse.Namespace, config: Config) -> int:
    match options.command:
        case "ls":
            from mirror.cli import ls

            return ls.run(config, options.name, as_json=options.json, sources=options.sources)
        case "forget":
            from mirror.cli import forget

            return forget.run(config, options.name)
        case "search":
            from mirror.cli import search

            limit = None if options.all else options.limit
            parameters = [(key, getattr(options, key)) for key in SEARCH_OPTIONS if getattr(options, key) is not None]
            parameters += [("annotation", text) for text in options.annotation or ()]
            return search.run(config, parameters, limit=limit, url=options.url, as_json=options.json)
        case "referrers":
            from mirror.cli import referrers

            return referrers.run(
                config, options.name, artifact_type=options.type, url=options.url, as_json=options.json
            )
        case "cache":
            return _run_cache(options, config)
        case _:
            raise AssertionError(options.command)


def _run_cache(options: argparse.Namespace, config: Config) -> int:
    from mirror.cli import cache

    match options.cache_command:
        case "ls":
            return cache.run_ls(config, as_json=options.json)
        case "stats":
            return cache.run_stats(config, as_json=options.json)
        case "refresh":
            return cache.run_refresh(config, options.name, as_json=options.json)
        case "forget":
            return cache.run_forget(config, options.name)
        case _:
            raise AssertionError(options.cache_command)
