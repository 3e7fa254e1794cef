"""A small OpenAI-compatible server for tests: answers by a function, counts what it is asked, stumbles when told.

`Fake(answer)` calls `answer(body)` for a text, the whole JSON of a chat completion, or a status to refuse with.
`models` are those it says it serves, each with the program it claims to be. It speaks /v1/chat/completions (streamed
too), /v1/models and /health. `FakeVllm` knows vLLM's routes for adapters and weights as well, and keeps what it is
told. Left out on purpose: everything else of the protocol, and any model.
"""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TRANSFER = {  # what vLLM is told of a transfer: whether one must be open for it
    "/shutdown_weight_transfer_engine": False,
    "/init_weight_transfer_engine": False,
    "/start_weight_update": False,
    "/update_weights": True,
    "/finish_weight_update": True,
}
KNOWN = (
    "/pause?mode=abort",
    "/resume",
    "/collective_rpc",
    "/reset_mm_cache",
    "/reset_encoder_cache",
    "/reset_prefix_cache",
)


class Fake(ThreadingHTTPServer):
    """`faults` are answered first, one a request: a status, "cut", "odd" (no JSON), "garbled" or ("wait", seconds).

    What is `garbled` says that it is packed, and is not; set, all answers are.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, answer=lambda body: "yes", models=None, slow=0.0, port=0):
        super().__init__(("127.0.0.1", port), _Handler)
        self.answer, self.models, self.slow = answer, models or {"m": "fake"}, slow
        self.faults, self.requests, self.keys, self.lock = [], [], [], threading.Lock()
        self.together, self.most = 0, 0  # requests under way, and the most there were
        self.retry_after, self.garbled = None, False

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.stop()

    def look(self, path):
        """The answer to a GET besides /v1/models; a number is its status."""
        return {"weight_version": "default"} if path == "/weight_info" else {}

    def tell(self, path, body):
        """(status, answer) to a POST that is no question."""
        return 404, {"error": f"no {path}"}

    def stop(self):
        """Answer nothing more, as a killed server does."""
        self.faults = ["cut"] * 1_000
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        pass  # a client that went away


class FakeVllm(Fake):
    """`told` holds what it was told, in order: (path, body). It has no weights, only names of them.

    Of a transfer it knows vLLM 0.32's rules: one is open at a time, and no group is left meanwhile.
    """

    def __init__(self, answer, models, **more):
        super().__init__(answer, dict.fromkeys(models, "vllm"), **more)
        self.version, self.told, self.asked = "default", [], answer
        self.open = False  # whether a transfer of weights is under way
        self.answer = self._answered

    def _answered(self, body):
        if body["model"] not in self.models:
            return 404
        if body.get("allowed_token_ids"):  # how processed log-probs are told from raw ones
            said = {"message": {"content": ""}, "logprobs": {"content": [{"logprob": 0.0}]}, "finish_reason": "length"}
            return {"model": body["model"], "choices": [said]}
        said = self.asked(body)
        return said if isinstance(said, int) else {"model": body["model"]} | said

    def look(self, path):
        known = {
            "/weight_info": {"weight_version": self.version},
            "/get_world_size": {"world_size": 2},
            "/is_paused": {"is_paused": False},
            "/health": {},
        }
        return known.get(path, 404)

    def tell(self, path, body):
        with self.lock:
            self.told.append((path, body))
        if path == "/v1/load_lora_adapter":
            self.models[body["lora_name"]] = "vllm"
        elif path == "/v1/unload_lora_adapter":
            del self.models[body["lora_name"]]
        elif path == "/update_weight_version":
            self.version = body["new_version"]
        elif path in TRANSFER:
            if self.open is not TRANSFER[path]:
                return 500, {"error": f"{path} while {'a' if self.open else 'no'} transfer is open"}
            self.open = path in ("/start_weight_update", "/update_weights")
            if path == "/finish_weight_update":
                self.version = body["weight_version"]
        elif path not in KNOWN:
            return 404, {"error": f"no {path}"}
        return 200, {}


class Failing(FakeVllm):
    """Answers one path by a status, or cuts the line there."""

    at, how = "", 500

    def tell(self, path, body):
        if path == self.at and self.how == "cut":
            raise ConnectionAbortedError
        return (self.how, {"error": "told to"}) if path == self.at else super().tell(path, body)

    def look(self, path):
        return self.how if path == self.at else super().look(path)


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        models = self.server.models
        if self.path.endswith("/models"):
            self._send({"object": "list", "data": [{"id": name, "owned_by": by} for name, by in models.items()]})
        else:
            said = self.server.look(self.path)
            self._send(*(({}, said) if isinstance(said, int) else (said,)))

    def do_POST(self):
        fake = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or "null")
        if not self.path.endswith("/chat/completions"):
            status, said = fake.tell(self.path, body)
            self._send(said, status)
            return
        with fake.lock:
            fake.requests.append(body)
            fake.keys.append(self.headers.get("Authorization"))
            fake.together += 1
            fake.most = max(fake.most, fake.together)
            fault = fake.faults.pop(0) if fake.faults else None
        time.sleep(fake.slow + (fault[1] if isinstance(fault, tuple) else 0.0))
        with fake.lock:
            fake.together -= 1  # before the answer: who has it may ask again at once
        self._answer(body, fault)

    def _answer(self, body, fault):
        if fault == "cut":
            self.connection.close()
            return
        elif isinstance(fault, int):
            self._send({"error": {"message": "told to"}}, fault)
            return
        elif fault == "garbled":
            self._send({}, garbled=True)
            return
        elif fault == "odd":
            self._send("no JSON")
            return
        said = self.server.answer(body)
        if isinstance(said, int):
            self._send({"error": {"message": "refused"}}, said)
            return
        if not isinstance(said, dict):
            texts = [said] * body.get("n", 1) if isinstance(said, str) else list(said)
            said = {"usage": {"prompt_tokens": 10, "completion_tokens": sum(len(t.split()) for t in texts)}}
            said["choices"] = [
                {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
                for i, text in enumerate(texts)
            ]
        if body.get("stream"):
            self._stream(said)
        else:
            self._send(said)

    def _send(self, value, status=200, garbled=False):
        content = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        self.send_response(status)
        if status != 200 and self.server.retry_after is not None:
            self.send_header("Retry-After", str(self.server.retry_after))
        if garbled or self.server.garbled:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, said):
        """Word by word, then the count of tokens, as vLLM streams."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        words = said["choices"][0]["message"]["content"].split(" ")
        pieces = [{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}]
        pieces += [{"choices": [{"index": 0, "delta": {"content": word}}]} for word in words]
        for piece in [*pieces, {"choices": [], "usage": said["usage"]}]:
            self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
            self.wfile.flush()
            time.sleep(0.002)
        self.wfile.write(b"data: [DONE]\n\n")

    def log_message(self, *args):
        pass
