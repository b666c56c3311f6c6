"""The command line."""

import gc

from mirror.cli.allocation import keep_pieces

# A start makes some 100,000 objects that stay, none of them in a cycle: looking for cycles as often as Python does by
# itself takes a fifth of it.
gc.set_threshold(20_000, 10, 10)

keep_pieces()
