"""`mirror serve`."""

from mirror.app.scanning import scan_settings
from mirror.config import Config
from mirror.sources.scan_process import ScanProcess


def run(config: Config, scans: ScanProcess) -> int:
    """Serve until SIGTERM or SIGINT; SIGHUP looks at folders and certificate again. Returns the exit status."""
    scans.start(scan_settings(config))
    # Loading all else takes as long as the first scan does, which goes on meanwhile.
    from mirror.cli.workers import serve

    return serve(config, scans.address)
