"""The garbage collector, where much comes to stay."""

import subprocess
import sys

LIVE_ON = """
import gc
from mirror.sources.heap import settle
settle()
looks = []
gc.callbacks.append(lambda phase, info: phase == "start" and looks.append(info["generation"]))
kept = [[number] for number in range(500_000)]
for number in range(10_000):
    cycle = []
    cycle.append(cycle)
print(max(looks), len(looks) > 300, len(gc.get_objects()) < 530_000)
"""


def test_what_comes_to_stay_is_not_looked_through_again_and_again() -> None:
    done = subprocess.run([sys.executable, "-c", LIVE_ON], capture_output=True, text=True, check=True)
    highest, often, cycles_gone = done.stdout.split()
    assert highest == "1", "a look at everything holds every request"
    assert (often, cycles_gone) == ("True", "True")
