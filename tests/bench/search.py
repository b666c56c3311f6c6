"""How long searches take over 50,000 manifests: `python -m tests.bench.search`. Milliseconds, median and worst."""

import random
import statistics
import sys
import tempfile
import time
from pathlib import Path

from mirror.oci.digest import Digest
from mirror.server.answer import json_answer
from mirror.server.search import cursor_after, document_of, read_query
from mirror.store.search import SearchIndex
from mirror.store.search_entry import Entry, Facts

# How many repositories, each with how many rows.
SHAPES = (
    ("many repositories", 5_000, 10),
    ("one row each", 50_000, 1),
    ("one repository", 1, 50_000),
)
ROUNDS = 9
KINDS = ("oci-image", "docker-image", "helm-chart", "sbom", "signature", None)
PLATFORMS = (("linux/amd64",), ("linux/arm64/v8",), ("linux/amd64", "linux/arm64/v8", "windows/amd64"), ())
NOW_MS = 1_760_000_000_000

SEARCHES = (
    *("", "q=app", "q=team-7", "q=*77*", "q=registry.example/team-1*", "q=no-such-thing", "q=APP-42:1.*"),
    *("kind=repository", "kind=artifact", "kind=version", "kind=repository&q=team-7&type=sbom"),
    *("type=oci-image", "type=signature", "type=application/vnd.example.4", "platform=linux/arm64"),
    *("annotation=team=7", "annotation=common=yes", "annotation=common=yes&annotation=team=7&platform=linux/amd64"),
    *("since=2025-10-09T09:00:00Z", "until=2025-10-09T08:53:30Z", "created_since=2025-01-01T00:00:00Z"),
    *(f"sort={sort}&order={order}" for sort in ("name", "version", "date", "size") for order in ("asc", "desc")),
    *("sort=version&q=app&n=1000", "sort=date&order=desc&n=1000", "sort=size&kind=repository&n=1000"),
    "platform=linux/amd64&type=oci-image&q=team&sort=size&order=desc&n=1000",
)


def fill(index: SearchIndex, repositories: int, tags: int) -> None:
    """`repositories` times `tags` rows; the later in both orders, the later seen."""
    chance = random.Random(7)
    for number in range(repositories):
        name = f"registry.example/team-{number % 50}/app-{number}"
        entries = []
        for tag in range(tags):
            kind = chance.choice(KINDS)
            facts = Facts(
                "application/vnd.oci.image.manifest.v1+json",
                f"application/vnd.example.{chance.randrange(20)}",
                kind,
                chance.choice(PLATFORMS),
                chance.randrange(10**9),
                NOW_MS - chance.randrange(10**11),
                {"team": str(number % 50), "common": "yes", "org.opencontainers.image.version": f"1.{tag}"},
            )
            digest = Digest.of(f"{number} {tag}".encode())
            entries.append(Entry(f"1.{tag}.{number}" if tag else "", digest, facts, NOW_MS + number + tag))
        index.put(name, entries)
    index.complete = True


def measure(index: SearchIndex, search: str) -> tuple[list[float], int]:
    """Milliseconds of the first page, and of the second where there is one, as they are sent; and the total."""
    query = read_query([tuple(part.split("=", 1)) for part in search.split("&") if part])  # type: ignore[misc] # pairs
    taken = []
    found = index.search(query)
    second = None
    if found.more:
        last = f"{search}&cursor={cursor_after(query, found)}"
        second = read_query([tuple(part.split("=", 1)) for part in last.split("&") if part])  # type: ignore[misc] # as above
    for _ in range(ROUNDS):
        for one in (query, second):
            if one is not None:
                began = time.perf_counter()
                json_answer(200, document_of(index.search(one)), {})
                taken.append((time.perf_counter() - began) * 1000)
    return taken, found.total


def main() -> None:
    for shape, repositories, tags in SHAPES:
        with tempfile.TemporaryDirectory() as folder:
            index = SearchIndex(Path(folder) / "search.db")
            began = time.perf_counter()
            fill(index, repositories, tags)
            sys.stdout.write(f"{shape}: filled in {time.perf_counter() - began:.1f} s\n")
            for search in SEARCHES:
                taken, total = measure(index, search)
                median, worst = statistics.median(taken), max(taken)
                sys.stdout.write(f"{median:7.1f} {worst:7.1f}  {total:6}  {search or '(everything)'}\n")
            index.close()


if __name__ == "__main__":
    main()
