"""`mirror serve`."""

import resource

from mirror.app.scanning import scan_settings
from mirror.config import Config
from mirror.sources.scan_process import ScanProcess


def run(config: Config, scans: ScanProcess) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP looks at folders and certificate again. Returns the exit status."""
    _raise_file_limit()
    scans.start(scan_settings(config))
    # Loading all else takes as long as the first scan does, which goes on meanwhile.
    from mirror.cli.workers import serve

    return serve(config, scans.address)


def _raise_file_limit() -> None:
    """Every blob being sent holds a descriptor, and the usual soft limit of 1,024 is soon reached."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
