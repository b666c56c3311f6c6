"""What the bench prints and draws: ratios of medians, and what was too noisy to judge."""

from xml.etree import ElementTree

from tests.bench.load import Measured
from tests.bench.picture import picture
from tests.bench.table import Row, render


def runs(*rates: float) -> list[Measured]:
    return [Measured(rate, rate * 500, 100, 900, 0) for rate in rates]


ROWS = [
    Row("GET <manifest>", {"nginx": runs(100, 101, 99), "mirror, 2 workers": runs(90, 200, 80)}),
    Row("tags", {"mirror, 2 workers": runs(50, 50, 50)}),
]


def test_ratios_are_those_of_medians_and_noisy_rounds_are_marked() -> None:
    text = render(ROWS, "nginx")
    first = next(line for line in text.splitlines() if line.startswith("GET <manifest>"))
    assert "~90 (0.90)" in first
    assert "~100" not in first
    assert "Too noisy to judge (rounds more than 20% apart): GET <manifest>." in text


def test_the_picture_shows_each_case_that_has_a_ratio() -> None:
    root = ElementTree.fromstring(picture(ROWS, "nginx"))  # noqa: S314 our own
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "GET <manifest>" in texts
    assert "0.90" in texts
    assert "tags" not in texts
