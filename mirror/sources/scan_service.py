"""What the scan process does: looks again and again, does the slow work that archives need, tells all workers.

A worker connects and hears, line by line, what is new to it: everything at first, then what changed; a slow one skips
what was outdated meanwhile. After `{"path", "lines"}` come so many lines of the path's document (`place_document`);
null where it cannot be read. `{"order", "unpacking"}` ends what a look found. A line from a worker asks for a look;
one with a path, as JSON, says that its bytes were found to be others than what it says of them.
"""

import json
import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Never

from mirror.logs import event
from mirror.sources.heap import settle, uncollected
from mirror.sources.scan import Look, Scanner
from mirror.sources.scan_feed import is_same_user
from mirror.sources.shelf import Job, Shelf
from mirror.sources.walk import Problem

log = logging.getLogger(__name__)

# Workers take over what was read while the first look goes on, so many paths at a time.
_TOLD_TOGETHER = 200
# How long after a look what it read is written down for the next start.
_CALM_SECONDS = 0.5
_SEND_BYTES = 256 * 1024


class ScanService:
    """`run` looks, `attend` takes workers; each in a thread of its own."""

    def __init__(self, make_scanner: Callable[[], Scanner], refresh_seconds: float) -> None:
        self._make_scanner = make_scanner
        self._scanner: Scanner | None = None
        self._refresh_seconds = refresh_seconds
        self._wanted = threading.Event()
        # Whether the first scan has been told.
        self._told = False
        self._found = _Found()
        self._problems: frozenset[Problem] = frozenset()
        self._working: threading.Thread | None = None
        self._tried: set[Job] = set()
        self._doubted: queue.SimpleQueue[str] = queue.SimpleQueue()

    def run(self) -> Never:
        """Look every `refresh_seconds`, and when asked."""
        while True:
            self._wanted.clear()
            calm_seconds = min(_CALM_SECONDS, self._refresh_seconds)
            try:
                self._look()
                # Requests that waited for the look come first.
                if not self._wanted.wait(calm_seconds) and self._scanner is not None:
                    self._scanner.save()
            except Exception:
                # A look that fails in a way not foreseen must not end all looking; what was found stays.
                log.exception("scan_failed")
            self._wanted.wait(self._refresh_seconds - calm_seconds)

    def attend(self, listener: socket.socket, begin: Callable[[], None]) -> Never:
        """Take workers as they come, and tell each. `begin` is called when the first one has come."""
        begun = False
        while True:
            connection, _ = listener.accept()
            if not is_same_user(connection):
                connection.close()
                continue
            if not begun:
                begin()
                begun = True
            worker = _Worker(connection)
            threading.Thread(target=self._tell, args=(worker,), daemon=True).start()
            threading.Thread(target=self._hear, args=(worker,), daemon=True).start()

    def _look(self) -> None:
        # Where there is no cache folder to be had, there may be one at the next look.
        scanner = self._scanner = self._scanner or self._make_scanner()
        while not self._doubted.empty():
            scanner.doubt(self._doubted.get())
        with nullcontext() if self._told else uncollected():
            look = scanner.look(self._found.begin)
        self._report(look.problems)
        if scanner.shelf is not None:
            self._work_on(scanner.shelf, look.jobs)
        self._found.publish(look, any(job.unpacks and job not in self._tried for job in look.jobs))
        if not self._told:
            self._told = True
            settle()

    def _work_on(self, shelf: Shelf, jobs: Sequence[Job]) -> None:
        """Slow work on archives goes on beside; each piece done makes the next look find more."""
        if jobs and (self._working is None or not self._working.is_alive()):
            self._working = threading.Thread(target=self._work, args=(shelf, jobs), daemon=True)
            self._working.start()

    def _work(self, shelf: Shelf, jobs: Sequence[Job]) -> None:
        for job in jobs:
            shelf.work(job)
            self._tried.add(job)
            self._wanted.set()

    def _report(self, problems: frozenset[Problem]) -> None:
        for problem in sorted(problems - self._problems, key=str):
            event(log, logging.WARNING, "skipped", path=problem.path, reason=problem.reason)
        self._problems = problems

    def _tell(self, worker: "_Worker") -> None:
        at = _At()
        with worker.socket, suppress(OSError):  # it is gone
            while (news := self._found.after(at, worker)) is not None:
                for piece in _pieces(news):
                    worker.socket.sendall(piece)
                at = news.at

    def _hear(self, worker: "_Worker") -> None:
        with suppress(OSError), worker.socket.makefile("rb") as lines:
            for line in lines:
                with suppress(ValueError):
                    self._doubted.put(json.loads(line))
                self._wanted.set()
        self._found.leave(worker)


@dataclass(slots=True)
class _Worker:
    """`gone`: it hears no more."""

    socket: socket.socket
    gone: bool = False


@dataclass(frozen=True, slots=True)
class _At:
    """How far a worker was told: of `changes`, and of `looks` that ended."""

    changes: int = 0
    looks: int = 0


@dataclass(frozen=True, slots=True)
class _News:
    """What a worker is to hear, and how far it then was told. `end` is its last line, None while a look goes on."""

    at: _At
    documents: Sequence[tuple[str, str | None]]
    end: str | None


class _Found:
    """What was found so far: documents by path, each with the number of the change that brought it."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._documents: dict[str, tuple[int, str | None]] = {}
        self._begun: list[tuple[str, str | None]] = []
        self._order: tuple[str, ...] = ()
        self._ordered = 0
        self._unpacking = False
        self._at = _At()

    def begin(self, path: str, document: str | None) -> None:
        """Of the first look, what was read so far can be told before it has ended."""
        if self._at.looks == 0:
            self._begun.append((path, document))
            if len(self._begun) == _TOLD_TOGETHER:
                with self._condition:
                    self._add(self._begun, self._at.looks)
                self._begun = []

    def publish(self, look: Look, unpacking: bool) -> None:
        """What a look found: all of it at once."""
        with self._condition:
            self._unpacking = unpacking
            self._add([one for one in look.changed.items() if not self._has(*one)], self._at.looks + 1)
            if look.order is not None:
                self._order, self._ordered = look.order, self._at.changes
                self._documents = {path: self._documents[path] for path in look.order}
            self._begun = []

    def after(self, at: _At, worker: _Worker) -> _News | None:
        """What is new to a worker that was told so far; waits until something is. None: it is gone."""
        with self._condition:
            self._condition.wait_for(lambda: worker.gone or self._at != at)
            if worker.gone:
                return None
            new = [(path, document) for path, (change, document) in self._documents.items() if change > at.changes]
            end = None
            if self._at.looks:
                # At its first word, it may come from another process, and know what went meanwhile.
                order = self._order if at.looks == 0 or self._ordered > at.changes else None
                end = json.dumps({"order": order, "unpacking": self._unpacking})
            return _News(self._at, new, end)

    def leave(self, worker: _Worker) -> None:
        """It is gone."""
        with self._condition:
            worker.gone = True
            self._condition.notify_all()

    def _has(self, path: str, document: str | None) -> bool:
        known = self._documents.get(path)
        return known is not None and known[1] is document

    def _add(self, documents: Sequence[tuple[str, str | None]], looks: int) -> None:
        number = self._at.changes + 1
        self._documents.update({path: (number, document) for path, document in documents})
        self._at = _At(number, looks)
        self._condition.notify_all()


def _pieces(news: _News) -> Iterator[bytes]:
    waiting: list[str] = []
    size = 0
    for path, document in news.documents:
        lines = None if document is None else document.count("\n") + 1 if document else 0
        waiting.append(json.dumps({"path": path, "lines": lines}))
        if document:
            waiting.append(document)
            size += len(document)
        if size > _SEND_BYTES:
            yield "\n".join([*waiting, ""]).encode()
            waiting, size = [], 0
    yield "\n".join([*waiting, *([news.end] if news.end else []), ""]).encode()
