"""One answer as the page's server streams it: lines of JSON while the model speaks, the last with all that was read.

The model is asked in a thread, which stops at the next token when nobody waits any more.
Left out on purpose: going on with an answer whose page was closed.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from vlmr1.playground.asking import Asked, Stopped
from vlmr1.playground.questions import Question, read, truth_boxes

FAULTS = (ValueError, OSError, FloatingPointError, RuntimeError)  # what a model or a picture may be guilty of


class Answering(StreamingResponse):
    """Lines: {"more"} by which the text grows, or {"text"} where it is another; then {"done"} or {"error"}."""

    def __init__(self, model: Asked, question: Question, ended: Callable[[], object]) -> None:
        """Asks at once; `ended` is called in the loop when the model is through, heard or not."""
        self.lines: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.loop, self.stop, self.heard = asyncio.get_running_loop(), threading.Event(), ""
        super().__init__(self._lines(), media_type="application/x-ndjson")
        threading.Thread(target=self._work, args=(model, question, ended), daemon=True).start()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.stop.set()

    async def _lines(self) -> AsyncIterator[str]:
        while True:
            line = await self.lines.get()
            yield json.dumps(line) + "\n"
            if line.keys() & {"done", "error"}:
                return

    def _work(self, model: Asked, question: Question, ended: Callable[[], object]) -> None:
        started = time.monotonic()
        last: dict[str, Any] = {"error": "the model failed; the terminal says why"}  # of a fault that nobody foresaw
        try:
            said = model.ask(question, self._told)
            shown = read(question, said.text, said.frame, said.tokens)
            more = {"text": said.text, "seconds": round(time.monotonic() - started, 2), "frame": said.frame}
            last = {"done": shown | more | {"true_boxes": truth_boxes(question.sample)}}
        except Stopped:
            pass  # there is nobody to tell
        except FAULTS as error:
            last = {"error": str(error) or type(error).__name__}
        finally:
            self._put(last)
            self._in_loop(ended)

    def _told(self, text: str) -> None:
        if self.stop.is_set():
            raise Stopped
        heard, self.heard = self.heard, text
        if text != heard:
            self._put({"more": text[len(heard) :]} if text.startswith(heard) else {"text": text})

    def _put(self, line: dict[str, Any]) -> None:
        self._in_loop(lambda: self.lines.put_nowait(line))

    def _in_loop(self, call: Callable[[], object]) -> None:
        if not self.loop.is_closed():  # the server has ended
            self.loop.call_soon_threadsafe(call)
