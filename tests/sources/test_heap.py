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


OUTLIVED = """
import gc
from collections import deque
from mirror.sources.heap import settle
settle()
# Each lives while many others are made, as a client's connection does, and leaves a cycle behind.
living = deque(maxlen=20_000)
most = 0
for number in range(2_000_000):
    cycle = [number]
    cycle.append(cycle)
    living.append(cycle)
    if number % 100_000 == 0:
        most = max(most, len(gc.get_objects()))
print(most)
"""


def test_what_is_left_in_cycles_by_those_who_lived_for_a_while_is_bounded() -> None:
    done = subprocess.run([sys.executable, "-c", OUTLIVED], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 1_000_000, "of two million"
