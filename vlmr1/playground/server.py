"""The page's server: its own files, questions to models, and a training's rollouts. `command.py` starts it.

No part of an address reaches the file system: the page's files are read at the start, pictures come in the request or
are named by numbers. Only requests under the names given to `page` are answered, and what is sent must say that it is
JSON; browsers say whose page asks, and no other site's is answered. Left out on purpose: accounts and keys, for the
page is for whoever sits at the machine.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vlmr1.playground.answering import FAULTS, Answering
from vlmr1.playground.asking import Asked, told_apart
from vlmr1.playground.choosing import FILTERS, ORDERS, chosen, left_by_each
from vlmr1.playground.examples import examples
from vlmr1.playground.questions import Misasked, Question, about_tasks, question_of, size_of
from vlmr1.playground.rollouts import Group, Run
from vlmr1.playground.rollouts_table import write_parquet

MOST_BYTES = 64 << 20  # of a question with its pictures
PAGE = 50  # groups that are listed at once
TOGETHER = 2  # questions that are held with their pictures, as many as are compared; others wait unread
SENDING = 120.0  # seconds in which a question must be here, for it keeps others waiting
HANDLED = (*FAULTS, ClientDisconnect)  # the last of who waited and left
KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; connect-src 'self' data:;"
    " frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


def page(models: Sequence[Asked], run: Run | None, names: Sequence[str]) -> ASGIApp:
    """The application. `names` are the hosts it answers to."""
    files = {one.name: one.read_bytes() for one in resources.files("vlmr1.playground").joinpath("page").iterdir()}

    def file(name: str) -> Callable[[Request], Response]:
        return lambda _: Response(files[name], media_type=KINDS[Path(name).suffix])

    async def facts(_: Request) -> Response:
        about = [{"name": name, "title": model.name, "note": model.note} for name, model in told_apart(models)]
        shows = {"filters": FILTERS, "orders": ORDERS, "run": None if run is None else run.name}
        return JSONResponse({"models": about, "tasks": about_tasks(), "rollouts": shows})

    async def show_examples(_: Request) -> Response:
        return JSONResponse(await run_in_threadpool(examples))

    places, measured = asyncio.Semaphore(TOGETHER), asyncio.Semaphore(TOGETHER)

    def read(content: bytes) -> tuple[Asked, Question]:
        sent = json.loads(content)
        number = sent.get("model", 0) if isinstance(sent, dict) else None
        if type(number) is not int or not 0 <= number < len(models):
            raise ValueError(f"model: a number from 0 to {len(models) - 1} is needed")
        return models[number], question_of(sent)

    async def ask(request: Request) -> Response:
        await places.acquire()
        try:
            content = await _sent(request, "application/json")
            model, question = await run_in_threadpool(read, content)
            return Answering(model, question, places.release)
        except BaseException:
            places.release()
            raise

    async def size(request: Request) -> Response:
        """The size of a sent picture's stored pixels; browsers turn what a camera noted to be turned."""
        async with measured:
            content = await _sent(request, "application/octet-stream")
            return JSONResponse(await run_in_threadpool(size_of, content))

    routes = [Route("/", file("index.html")), Route("/facts", facts), Route("/examples", show_examples)]
    routes += [Route(f"/{name}", file(name)) for name in files]
    routes += [Route("/ask", ask, methods=["POST"]), Route("/size", size, methods=["POST"])] if models else []
    routes += _rollout_routes(run) if run is not None else []
    return Guard(Starlette(routes=routes, exception_handlers=dict.fromkeys(HANDLED, _fault)), names)


async def _fault(_: Request, error: Exception) -> Response:
    """A fault in a sentence, for the page to show, at the field that it is about where it is about one."""
    field = {"X-Field": error.field} if isinstance(error, Misasked) else None
    return PlainTextResponse(str(error) or type(error).__name__, status_code=400, headers=field)


async def _sent(request: Request, kind: str) -> bytes:
    """What was sent, of that media type; of those that no other site's page may send unasked."""
    if request.headers.get("content-type", "").partition(";")[0] != kind:
        raise ValueError(f"Content-Type: {kind} is needed")
    content = bytearray()
    try:
        async with asyncio.timeout(SENDING):
            async for part in request.stream():
                content += part
                if len(content) > MOST_BYTES:
                    raise ValueError(f"more than {MOST_BYTES >> 20} MB; give smaller pictures")
    except TimeoutError as error:
        raise ValueError(f"not sent within {SENDING:g} s; give smaller pictures") from error
    return bytes(content)


def _rollout_routes(run: Run) -> list[Route]:
    def reading(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
        def locked(request: Request) -> Response:
            with run.reading:
                return answer(request)

        return locked

    def about(_: Request) -> Response:
        run.refresh()
        sources = sorted({group.source for group in run.groups})
        return JSONResponse({"name": run.name, "groups": len(run.groups), "steps": run.steps(), "sources": sources})

    def groups(request: Request) -> Response:
        wanted = dict(request.query_params)
        found = chosen(run, wanted)
        offset = wanted.get("offset", "0")
        if not offset.isdecimal():
            raise ValueError(f"offset: a whole number is needed, it is {offset[:40]!r}")
        listed = [run.brief(group) for group in found[int(offset) : int(offset) + PAGE]]
        alone = {} if found else left_by_each(run, wanted)
        return JSONResponse({"total": len(found), "of": len(run.groups), "alone": alone, "groups": listed})

    def one(request: Request) -> Response:
        return JSONResponse(run.whole(_group(run, request)))

    def picture(request: Request) -> Response:
        content, kind = run.picture(_group(run, request), request.path_params["place"])
        return Response(content, media_type=kind)

    def parquet(_: Request) -> Response:
        with run.reading:
            kept = run.as_it_stands()
        folder = tempfile.TemporaryDirectory()
        path = Path(folder.name, "rollouts.parquet")
        write_parquet(kept, path)
        return FileResponse(path, filename=path.name, background=BackgroundTask(folder.cleanup))

    return [
        Route("/rollouts/about", reading(about)),
        Route("/rollouts/groups", reading(groups)),
        Route("/rollouts/group/{number:int}", reading(one)),
        Route("/rollouts/group/{number:int}/picture/{place:int}", reading(picture)),
        Route("/rollouts.parquet", parquet),
    ]


def _group(run: Run, request: Request) -> Group:
    number = request.path_params["number"]
    if not 1 <= number <= len(run.groups):
        raise ValueError(f"group {number}: the run has groups 1 to {len(run.groups)}")
    return run.groups[number - 1]


class Guard:
    """Answers requests for the named hosts, and none of another site's page; puts the same headers on every answer."""

    def __init__(self, app: ASGIApp, names: Sequence[str]) -> None:
        self.app, self.names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def headed(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    *((k.lower().encode(), v.encode()) for k, v in HEADERS.items()),
                ]
            await send(message)

        app: ASGIApp = self.app
        sent = {key: value.decode("latin-1") for key, value in scope["headers"]}
        if (host := _bare(sent.get(b"host", ""))) not in self.names:
            app = PlainTextResponse(f"the page is not served as {host}; start it with --name {host}", status_code=403)
        elif sent.get(b"sec-fetch-site", "none") not in ("same-origin", "none"):
            app = PlainTextResponse("the page answers its own requests alone", status_code=403)
        await app(scope, receive, headed)


def _bare(host: str) -> str:
    """A Host header without its port, in small letters."""
    host = host.lower()
    return host[: host.index("]") + 1] if host.startswith("[") and "]" in host else host.partition(":")[0]
