"""Shared by the tests of the page: a model that says one thing, questions to it, and servers on real sockets."""

import base64
import io
import threading
import time
from contextlib import contextmanager

import uvicorn
from PIL import Image

from vlmr1.playground import command
from vlmr1.playground.asking import Said

ANSWER = '<think>I look for it.</think><answer>{"bbox_2d":[10,20,50,60],"label":"cat"}</answer>'


class Parrot:
    """A model that says one thing, word by word."""

    name, names, note = "parrot", (), ""

    def __init__(self, text=ANSWER, wait=0.0):
        self.text, self.wait, self.asked, self.stopped = text, wait, [], threading.Event()

    def ask(self, question, told):
        self.asked.append(question)
        words = self.text.split(" ")
        for end in range(1, len(words) + 1):
            time.sleep(self.wait)
            try:
                told(" ".join(words[:end]))
            except BaseException:
                self.stopped.set()
                raise
        return Said(self.text, question.pictures[0].size, len(words))


def png(size=(100, 80), kind="PNG", **more):
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, kind, **more)
    return base64.b64encode(file.getvalue()).decode()


def question(**more):
    return {"task": "rec", "text": "the cat", "truth": "[10, 20, 50, 60]", "pictures": [png()]} | more


@contextmanager
def serving():
    """Runs applications on real sockets; gives a function from one to its address."""
    servers = []

    def serve(app):
        listening = command.listen("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        servers.append((server, thread))
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield serve
    for server, thread in servers:
        server.should_exit = True
        thread.join(5)
