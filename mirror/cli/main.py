"""The `mirror` command: its options. What a command needs is loaded when it is run.

0 done, 1 something was found wrong, 2 wrong use or configuration, 3 done in part.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mirror import __version__
from mirror.cli import signals


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Usage errors exit with 2, as argparse does."""
    options = _parser().parse_args(arguments)
    if options.command != "serve":
        from mirror.cli import commands

        return commands.run(options)
    # Before anything is loaded and any thread is there: a start takes long enough for a reload or Ctrl-C to come.
    signals.hold()
    from mirror.cli.limits import raise_file_limit
    from mirror.sources.scan_process import ScanProcess

    raise_file_limit()
    with ScanProcess() as scans:
        # It loads what it needs while the configuration is read here.
        scans.load()
        from mirror.cli import commands

        return commands.run(options, scans)


def _parser() -> argparse.ArgumentParser:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--config", type=Path, metavar="FILE", help="configuration (default: ./config.yaml if there)")
    common.add_argument("--layouts", action="append", metavar="DIR", help="serve this folder; may be repeated")
    common.add_argument("--cache", metavar="DIR", help="where cached content lies")
    common.add_argument("--log-format", choices=["auto", "text", "json"], help="form of the log lines")
    reading = argparse.ArgumentParser(add_help=False)
    reading.add_argument("--json", action="store_true", help="print JSON")

    asking = argparse.ArgumentParser(add_help=False)
    asking.add_argument("--url", metavar="URL", help="ask the mirror that runs there, not the configured folders")

    parser = argparse.ArgumentParser(prog="mirror", description="A pull-only container registry.")
    parser.add_argument("--version", action="version", version=f"mirror {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser("serve", parents=[common], help="answer requests")
    command.add_argument("--listen", metavar="HOST:PORT", help="address to listen on")
    command.add_argument("--workers", metavar="N", help="number of processes, or auto: one for each processor")
    command = commands.add_parser("ls", parents=[common, reading], help="list local content")
    command.add_argument("name", nargs="?", help="one repository")
    command.add_argument("--sources", action="store_true", help="show where each tag comes from")
    _add_search(
        commands.add_parser("search", parents=[common, reading, asking], help="find local and cached content")
    )
    command = commands.add_parser(
        "referrers", parents=[common, reading, asking], help="list signatures, SBOMs and else that refers to an image"
    )
    command.add_argument("name", metavar="NAME[:TAG]", help="the image; NAME@DIGEST for any subject")
    command.add_argument("--type", metavar="TYPE", help="only of this artifact type")
    commands.add_parser("check-config", parents=[common, reading], help="check and print the configuration")
    command = commands.add_parser("forget", parents=[common], help="forget a name that local content once had")
    command.add_argument("name", help="the repository's name, as `ls` shows it")
    command = commands.add_parser("cache", help="look at what is cached of upstreams, or change it")
    parts = command.add_subparsers(dest="cache_command", required=True, metavar="COMMAND")
    parts.add_parser("ls", parents=[common, reading], help="list cached tags and manifests")
    parts.add_parser("stats", parents=[common, reading], help="how much is cached")
    part = parts.add_parser("refresh", parents=[common, reading], help="ask the upstream for one tag now")
    part.add_argument("name", metavar="NAME:TAG", help="the tag, as docker.io/library/ubuntu:22.04")
    part = parts.add_parser("forget", parents=[common], help="forget one tag, or a whole repository")
    part.add_argument("name", metavar="NAME[:TAG]", help="what to forget")
    return parser


def _add_search(command: argparse.ArgumentParser) -> None:
    """Options named as the endpoint's parameters are."""
    command.add_argument("q", nargs="?", metavar="TEXT", help="part of name:tag; with *, all of it")
    command.add_argument("--kind", help="repository, artifact or version")
    command.add_argument("--type", help="a media type, or a short name: oci-image, helm-chart, sbom, signature, …")
    command.add_argument("--platform", help="os/architecture[/variant]")
    command.add_argument("--annotation", action="append", metavar="KEY=VALUE", help="may be repeated")
    command.add_argument("--digest", help="of the manifest")
    for name, help_text in (("since", "first seen here"), ("created", "made")):
        prefix = "" if name == "since" else "created-"
        command.add_argument(f"--{prefix}since", metavar="TIME", help=f"{help_text} at this time (RFC 3339) or later")
        command.add_argument(f"--{prefix}until", metavar="TIME", help=f"{help_text} before this time")
    command.add_argument("--sort", help="name, version, date or size")
    command.add_argument("--order", help="asc or desc")
    command.add_argument("--limit", type=_count, default=100, metavar="N", help="show at most this many (100)")
    command.add_argument("--all", action="store_true", help="show everything")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"found {text}, expected a whole number, 1 or more")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
