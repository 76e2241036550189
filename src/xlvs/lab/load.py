"""Clients that ask without pause: several ``curl`` loops on one node, and what became of each request."""

from __future__ import annotations

import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from xlvs.lab import namespaces
from xlvs.lab.build import Lab

PATIENCE = 5  # seconds that a request may take


@dataclass
class Load:
    """What the clients have seen so far. Answers are counted by the page that came."""

    answers: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def requests(self) -> int:
        """Requests that are over, answered or failed."""
        with self._lock:
            return self.answers.total() + len(self.failures)

    def seen(self) -> Counter[str]:
        """A copy of the answers so far."""
        with self._lock:
            return Counter(self.answers)

    def wait_for(self, more: int, patience: float = 10.0) -> int:
        """Wait until so many more requests are over, or ``patience`` seconds; returns how many were."""
        start, deadline = self.requests, time.monotonic() + patience
        while self.requests < start + more and time.monotonic() < deadline:
            time.sleep(0.01)
        return self.requests - start

    def _ask(self, command: list[str]) -> None:
        while not self._stop.is_set():
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            with self._lock:
                if done.returncode == 0:
                    self.answers[done.stdout.strip()] += 1
                else:
                    self.failures.append(done.stderr.strip() or f"curl ended with {done.returncode}")


@contextmanager
def running(lab: Lab, url: str, clients: int = 4, node: str = "client") -> Iterator[Load]:
    """Keep ``clients`` loops asking for ``url``, a connection for each request, during the block."""
    curl = ["curl", "-sS", "--fail", "--max-time", str(PATIENCE), url]
    command = namespaces.inside(lab.namespace(node), curl)
    load = Load()
    threads = [threading.Thread(target=load._ask, args=(command,)) for _ in range(clients)]
    try:
        for thread in threads:
            thread.start()
        yield load
    finally:
        load._stop.set()
        for thread in threads:
            if thread.ident is not None:  # interrupted early, some may never have started
                thread.join()
