"""The `mirror` command: options, commands, exit statuses.

0 done, 1 something was found wrong, 2 wrong use or configuration, 3 done in part.
"""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

from mirror import logs
from mirror.cli import cache, check_config, forget, ls, serve
from mirror.config import Config, ConfigError, load


class Overrides(TypedDict):
    """What the command line says instead of the configuration file."""

    layouts: Sequence[str]
    cache: str | None
    listen: str | None
    workers: str | None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Usage errors exit with 2, as argparse does."""
    options = _parser().parse_args(arguments)
    overrides: Overrides = {
        "layouts": options.layouts or (),
        "cache": options.cache,
        "listen": getattr(options, "listen", None),
        "workers": getattr(options, "workers", None),
    }
    if options.command == "check-config":
        return check_config.run(options.config, **overrides, as_json=options.json)
    try:
        config = load(options.config, **overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    logs.set_up(options.log_format or config.log_format)
    try:
        return _run(options, config)
    except BrokenPipeError:
        return 0  # the reader of our output had enough
    except KeyboardInterrupt:
        return 130


def _run(options: argparse.Namespace, config: Config) -> int:
    match options.command:
        case "serve":
            return serve.run(config)
        case "ls":
            return ls.run(config, options.name, as_json=options.json, sources=options.sources)
        case "forget":
            return forget.run(config, options.name)
        case "cache":
            return _run_cache(options, config)
        case _:
            raise AssertionError(options.command)


def _run_cache(options: argparse.Namespace, config: Config) -> int:
    match options.cache_command:
        case "ls":
            return cache.run_ls(config, as_json=options.json)
        case "stats":
            return cache.run_stats(config, as_json=options.json)
        case "refresh":
            return cache.run_refresh(config, options.name)
        case "forget":
            return cache.run_forget(config, options.name)
        case _:
            raise AssertionError(options.cache_command)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, metavar="FILE", help="configuration (default: ./config.yaml if there)")
    common.add_argument("--layouts", action="append", metavar="DIR", help="serve this folder; may be repeated")
    common.add_argument("--cache", metavar="DIR", help="where cached content lies")
    common.add_argument("--log-format", choices=["auto", "text", "json"], help="form of the log lines")
    reading = argparse.ArgumentParser(add_help=False)
    reading.add_argument("--json", action="store_true", help="print JSON")

    parser = argparse.ArgumentParser(prog="mirror", description="A pull-only container registry.")
    parser.add_argument("--version", action="version", version=f"mirror {version('oci-mirror')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("serve", parents=[common], help="answer requests")
    command.add_argument("--listen", metavar="HOST:PORT", help="address to listen on")
    command.add_argument("--workers", metavar="N", help="number of processes")
    command = commands.add_parser("ls", parents=[common, reading], help="list local content")
    command.add_argument("name", nargs="?", help="one repository")
    command.add_argument("--sources", action="store_true", help="show where each tag comes from")
    commands.add_parser("check-config", parents=[common, reading], help="check and print the configuration")
    command = commands.add_parser("forget", parents=[common], help="forget a name that local content once had")
    command.add_argument("name", help="the repository's name, as `ls` shows it")
    command = commands.add_parser("cache", help="look at what is cached of upstreams, or change it")
    parts = command.add_subparsers(dest="cache_command", required=True, metavar="COMMAND")
    parts.add_parser("ls", parents=[common, reading], help="list cached tags and manifests")
    parts.add_parser("stats", parents=[common, reading], help="how much is cached")
    part = parts.add_parser("refresh", parents=[common], help="ask the upstream for one tag now")
    part.add_argument("name", metavar="NAME:TAG", help="the tag, as docker.io/library/ubuntu:22.04")
    part = parts.add_parser("forget", parents=[common], help="forget one tag, or a whole repository")
    part.add_argument("name", metavar="NAME[:TAG]", help="what to forget")
    return parser


if __name__ == "__main__":
    sys.exit(main())
