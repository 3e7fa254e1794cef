"""A server in front of a real S3 server that hands everything on, except what a test wants to go wrong."""

import http.client
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlparse


class Faults:
    """What goes wrong. `asked` has (method, path) of every request, in order."""

    def __init__(self):
        self.asked = []
        self.strip = ()  # request headers that this server does not know
        self.strip_reply = ()  # what it forgets to say
        self.answer = lambda method, path: None  # a status to answer with instead of asking
        self.change = lambda method, path, headers, body: (headers, body)  # of a reply
        self.cut = lambda method, path: None  # bytes after which the reply's body ends


@contextmanager
def faulty(server):
    """(URL, Faults) of a server in front of `server`."""
    faults, behind = Faults(), urlparse(server).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def hand_on(self):
            faults.asked.append((self.command, self.path))
            length = int(self.headers.get("Content-Length") or 0)
            if self.headers.get("Expect") == "100-continue":
                self.send_response_only(100)
                self.end_headers()
            body = self.rfile.read(length)
            status = faults.answer(self.command, self.path)
            if status is not None:
                self.reply(status, {}, b"")
                return
            headers = {k: v for k, v in self.headers.items() if k.lower() not in {"expect", *faults.strip}}
            onward = http.client.HTTPConnection(behind, timeout=30)
            onward.request(self.command, self.path, body, headers)
            came = onward.getresponse()
            said, body = faults.change(self.command, self.path, dict(came.getheaders()), came.read())
            self.reply(came.status, said, body)
            onward.close()

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

    front = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    front.daemon_threads = True
    threading.Thread(target=front.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{front.server_port}", faults
    finally:
        front.shutdown()
        front.server_close()
