"""A server in front of a real S3 server that hands everything on, except what a test wants to go wrong.

It refuses, as Amazon's does and moto does not, requests signed more than a quarter of an hour ago or ahead, and bodies
that are not what their checksum says.
"""

import base64
import hashlib
import http.client
import socket
import threading
import zlib
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse

SKEW = timedelta(minutes=15)
HANG = 30  # seconds after which one that hangs is cut


class Faults:
    """What goes wrong. `asked` has (method, path) of every request, in order. `answer` is asked first."""

    def __init__(self):
        self.asked = []
        self.strip = ()  # request headers that this server does not know
        self.strip_reply = ()  # what it forgets to say
        self.answer = lambda method, path: None  # a status, or one and S3's code, to answer with instead of asking
        self.lose = lambda method, path: None  # the connection "before" or "after" asking, or "hang" instead of it
        self.send = lambda method, path, headers, body: (headers, body)  # what the server behind is sent
        self.change = lambda method, path, headers, body: (headers, body)  # of a reply
        self.cut = lambda method, path: None  # bytes after which the reply's body ends


@contextmanager
def faulty(server):
    """(URL, Faults) of a server in front of `server`."""
    faults, behind, over = Faults(), urlparse(server).netloc, threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def hand_on(self):
            faults.asked.append((self.command, self.path))
            length = int(self.headers.get("Content-Length") or 0)
            if self.headers.get("Expect") == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            body = self.rfile.read(length)
            if len(body) < length:  # who sends it has died
                self.drop()
                return
            status = skewed(self.headers.get("X-Amz-Date")) or faults.answer(self.command, self.path)
            if status is not None:
                if isinstance(status, int):
                    self.reply(status, {}, b"")
                else:
                    self.refuse(*status)
                return
            lost = faults.lose(self.command, self.path)
            if lost in ("before", "hang"):
                over.wait(HANG if lost == "hang" else 0)
                self.drop()
                return
            headers = {k: v for k, v in self.headers.items() if k.lower() not in {"expect", *faults.strip}}
            headers, body = faults.send(self.command, self.path, headers, body)
            if mistaken(headers, body):
                self.refuse(400, "BadDigest")
                return
            onward = http.client.HTTPConnection(behind, timeout=30)
            onward.request(self.command, self.path, body, headers)
            came = onward.getresponse()
            if lost == "after":
                came.read()
                onward.close()
                self.drop()
                return
            said, body = faults.change(self.command, self.path, dict(came.getheaders()), came.read())
            self.reply(came.status, said, body)
            onward.close()

        def refuse(self, status, code):
            said = f"<Error><Code>{code}</Code><Message>planned</Message></Error>"
            self.reply(status, {"Content-Type": "application/xml"}, said.encode())

        def drop(self):
            self.close_connection = True
            with suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def reply(self, status, headers, body):
            self.send_response_only(status)
            gone = {"content-length", "connection", "transfer-encoding", *faults.strip_reply}
            kept = {k: v for k, v in headers.items() if k.lower() not in gone}
            length = headers.get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            for key, value in {**kept, "Content-Length": length}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command != "HEAD":
                cut = faults.cut(self.command, self.path)
                self.wfile.write(body if cut is None else body[:cut])
                if cut is not None:
                    self.wfile.flush()
                    self.close_connection = True

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = hand_on

        def log_message(self, *_):
            pass

        def handle(self):
            with suppress(ConnectionError):  # who asked has been killed, or has given up
                super().handle()

    front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    front.daemon_threads = True
    threading.Thread(target=front.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{front.server_port}", faults
    finally:
        over.set()
        front.shutdown()
        front.server_close()


def skewed(signed):
    """What Amazon's server says to a request that was signed long ago, or is to be signed yet."""
    if (
        signed is None
        or abs(datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC) - datetime.now(UTC)) < SKEW
    ):
        return None
    return 403, "RequestTimeTooSkewed"


def mistaken(headers, body):
    """Whether a body has another CRC32 or sha256 than its sender says."""
    told = {key.lower(): value for key, value in headers.items()}
    sums = {"crc32": zlib.crc32(body).to_bytes(4, "big"), "sha256": hashlib.sha256(body).digest()}
    said = {name: told.get(f"x-amz-checksum-{name}") for name in sums}
    return any(value is not None and base64.b64decode(value) != sums[name] for name, value in said.items())
