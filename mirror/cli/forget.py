"""`mirror forget NAME`."""

import sys

from mirror.app.local import remembered
from mirror.config import Config


def run(config: Config, name: str) -> int:
    """Forget that local content once had this name; a running mirror learns of it at its next scan."""
    if remembered(config).forget(name):
        print(f"{name}: forgotten")
        return 0
    print(f"{name}: not among the remembered names", file=sys.stderr)
    return 1
