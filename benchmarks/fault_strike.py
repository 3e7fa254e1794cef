"""A server struck from some request on: what goes wrong there, and an attempt killed at one of its requests."""

from __future__ import annotations

import random
import threading
from typing import Any

from benchmarks.forks import Running
from tests.faulty import Faults


class Strike:
    """Which requests of an attempt are struck: from the `first` on, so many; and what then happens."""

    def __init__(self, faults: Faults, first: int, many: float, what: str, rng: random.Random) -> None:
        self.first, self.many, self.what, self.rng = first, many, what, rng
        self.count, self.lock, self.here = 0, threading.Lock(), threading.local()
        self.running: Running | None = None
        self.started = threading.Event()
        faults.answer, faults.lose, faults.send = self.answer, self.lose, self.send
        faults.change, faults.cut = self.change, self.cut

    def answer(self, method: str, path: str) -> Any:
        """Asked first, so it is here that a request is counted."""
        with self.lock:
            self.here.struck = self.first <= self.count < self.first + self.many
            self.count += 1
        if self.here.struck and self.what == "killed":
            self.started.wait(10)
            assert self.running is not None
            if self.rng.random() < 0.5:
                self.running.kill()  # before the server has it; else it does what it was asked, and nobody hears of it
        kinds = {
            "error 500": (500, "InternalError"),
            "slow down": (503, "SlowDown"),
            "credentials refused": (403, "InvalidAccessKeyId"),
            "out of space": (507, "InsufficientStorage"),
        }
        return kinds.get(self.what) if self.here.struck else None

    def lose(self, method: str, path: str) -> str | None:
        kinds = {"hangs": "hang", "connection lost": "before", "answer lost": "after", "killed": "after"}
        return kinds.get(self.what) if self.here.struck else None

    def send(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        if self.here.struck and body and self.what == "upload truncated":
            body = body[: len(body) // 2]
            headers = {**headers, "Content-Length": str(len(body))}
        if self.here.struck and body and self.what == "upload flipped":
            body = self.flipped(body)
        if self.here.struck and self.what == "killed":
            assert self.running is not None
            self.running.kill()
        return headers, body

    def change(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        if self.here.struck and body and self.what == "byte flipped":
            body = self.flipped(body)
        if self.here.struck and body and self.what == "truncated":
            body = body[: self.rng.randrange(len(body))]
        return headers, body

    def cut(self, method: str, path: str) -> int | None:
        """Bytes of the reply after which the connection is cut."""
        return self.rng.randrange(2000) if self.here.struck and self.what == "cut mid-body" else None

    def flipped(self, body: bytes) -> bytes:
        at = self.rng.randrange(len(body))
        return body[:at] + bytes([body[at] ^ 1 << self.rng.randrange(8)]) + body[at + 1 :]
