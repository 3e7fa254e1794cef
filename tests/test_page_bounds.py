"""Whom the page answers, and how much it holds at once."""

import asyncio
import json
import threading
from types import SimpleNamespace

import pytest
from starlette.testclient import TestClient

from tests.pages import Parrot, question
from vlmr1.cli import main
from vlmr1.playground import command, server
from vlmr1.playground.server import TOGETHER, page

HEADERS = [(b"host", b"testserver"), (b"content-type", b"application/json")]


@pytest.mark.parametrize(
    ("host", "further", "answered", "refused"),
    [
        ("127.0.0.1", [], ["127.0.0.1:4700", "localhost:4700", "LOCALHOST", "[::1]:4700"], ["0.0.0.0:4700"]),
        ("0.0.0.0", ["box.lan"], ["0.0.0.0:4700", "localhost", "box.lan:4700", "Box.lan"], ["box", "192.168.1.5"]),
        ("192.168.1.5", [], ["192.168.1.5:4700", "127.0.0.1"], ["192.168.1.6", ""]),
        ("fd00::1", [], ["[fd00::1]:4700"], ["[fd00::2]:4700"]),
        ("127.0.0.2", [], ["127.0.0.2:4700"], ["127.0.0.3"]),
    ],
)
def test_the_page_answers_to_its_own_names_alone_wherever_it_listens(host, further, answered, refused):
    here = TestClient(page([Parrot()], None, command.names(host, further)))
    for name in answered:
        assert here.get("/facts", headers={"Host": name}).status_code == 200, name
    for name in [*refused, "rebound.example:4700", "localhost.rebound.example"]:
        assert here.get("/facts", headers={"Host": name}).status_code == 403, name


@pytest.mark.parametrize(
    ("host", "warned"),
    [("127.0.0.1", False), ("127.0.0.2", False), ("localhost", False), ("::1", False), ("0.0.0.0", True), ("b", True)],
)
def test_only_what_others_reach_is_warned_of(host, warned, monkeypatch, capsys):
    held = SimpleNamespace(getsockname=lambda: (host, 4700))
    run = SimpleNamespace(elsewhere=list, name="run")
    monkeypatch.setattr(command, "_read", lambda *_: run)
    monkeypatch.setattr(command, "listen", lambda *_: held)
    monkeypatch.setattr("uvicorn.Server.run", lambda self, sockets: None)
    main(["rollouts", "run", "--host", host, "--name", "box.lan", "--no-browser"])
    assert ("localhost, [::1], " in (said := capsys.readouterr().out)) == warned and "the page is at http://" in said


def test_a_name_is_a_name():
    with pytest.raises(SystemExit, match=r"--name http://b:1: is no host's name; give it alone, without http:// and p"):
        main(["rollouts", "nowhere", "--name", "http://b:1"])


def test_questions_that_wait_are_not_read_yet_and_are_parsed_beside_the_loop(monkeypatch):
    parsed_in = []
    recording = SimpleNamespace(loads=lambda content: parsed_in.append(threading.get_ident()) or json.loads(content))
    monkeypatch.setattr(server, "json", recording)
    app, body = page([Parrot()], None, ("testserver",)), json.dumps(question()).encode()

    async def posted(begun, rest):
        """Sends half of a question at once and the other with `rest`, or leaves where that is None; its status."""
        parts, said = [body[:50], body[50:]], []

        async def receive():
            begun.append(len(parts))
            if rest is None:
                return {"type": "http.disconnect"}
            if len(parts) < 2:
                await rest.wait()
            if not parts:
                await asyncio.sleep(60)  # it stays
            return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

        async def send(message):
            said.append(message)

        scope = {"type": "http", "method": "POST", "path": "/ask", "query_string": b"", "headers": HEADERS}
        await app(scope | {"asgi": {"version": "3.0", "spec_version": "2.4"}}, receive, send)
        return said[0]["status"]

    async def all_of_them():
        rest, first, later = asyncio.Event(), [], []
        under_way = [asyncio.create_task(posted(first, rest)) for _ in range(TOGETHER)]
        under_way += [asyncio.create_task(posted(later, None)), asyncio.create_task(posted(later, rest))]
        while len(first) < 2 * TOGETHER:
            await asyncio.sleep(0)
        assert later == []
        rest.set()
        return await asyncio.wait_for(asyncio.gather(*under_way), 20)

    assert asyncio.run(all_of_them()) == [200, 200, 400, 200]
    assert len(parsed_in) == TOGETHER + 1 and threading.get_ident() not in parsed_in


def test_a_question_that_does_not_come_gives_its_place_back(monkeypatch):
    monkeypatch.setattr(server, "SENDING", 0.05)
    here = TestClient(page([Parrot()], None, ("testserver",)))

    async def app(scope, receive, send):
        if scope["path"] == "/slow":
            scope, receive = scope | {"path": "/ask"}, lambda: asyncio.sleep(60)
        await here.app(scope, receive, send)

    slow = TestClient(app)
    for _ in range(TOGETHER + 1):
        reply = slow.post("/slow", json=question())
        assert (reply.status_code, reply.text) == (400, "not sent within 0.05 s; give smaller pictures")
