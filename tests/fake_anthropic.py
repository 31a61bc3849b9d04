"""A local stand-in for Anthropic's Messages and Message Batches endpoints that fails on request and knows what it billed."""

import json
import random
import re
import select
import socket
import struct
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

Fault = Literal[
    "429 retry-after",
    "429",
    "529",
    "500",
    "400",
    "401",
    "404",
    "dropped",  # the connection is reset before an answer
    "slow",  # nothing comes until the client hangs up
    "cut",  # the connection closes in the middle of the body
    "page",  # a web page, as of a proxy
    "garbled",  # the body is half of the JSON, in a sound response
    "refusal",  # by the model, in a sound answer
    "truncated",  # at max_tokens, in a sound answer
    "context",  # at the end of the model's context, in a sound answer
    "paused",  # in the middle of a turn, in a sound answer
]
Fate = Literal["succeeded", "duplicate", "missing", "errored", "refused", "expired", "canceled"]  # refused: as not valid
Endpoint = Literal["messages", "create", "retrieve", "results"]

_CUT = {"truncated": "max_tokens", "context": "model_context_window_exceeded", "paused": "pause_turn"}
TRANSIENT: tuple[Fault, ...] = ("429 retry-after", "429", "529", "500", "dropped", "cut", "garbled")
API_KEY = "sk-ant-fake-0123456789-do-not-print"

_STATUS = {"400": 400, "401": 401, "404": 404, "429": 429, "429 retry-after": 429, "500": 500, "529": 529}
_PARAMETERS = ("model", "temperature", "max_tokens", "output_config")
_ERROR_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def score(prompt: str) -> str:
    """Answer a prompt with a JSON that depends on nothing else."""
    return json.dumps({"score": zlib.crc32(prompt.encode()) % 101})


class FakeAnthropic:
    """The API as a context manager; its attributes may be changed while it runs.

    A live prompt is billed when its whole answer was handed to a client that had not hung up; a batch is billed when it is
    submitted, for what will succeed. Everything is also written to `log`, one JSON a line, without headers.

    Attributes:
        answer: prompt → text; it may block.
        faults: kinds drawn for every request, at `fault_probability`.
        fault_of: prompt → fault of every live request with it, and of its content in a batch.
        down: fault of every request, until it is None.
        fate_of: (prompt, batch number from 1) → what becomes of it in a batch.
        looks_in_progress: a batch has ended only after so many looks at it.
        count_tokens: how a text is billed.
        think_seconds: before every live answer.
        models: that can be looked up.
        retry_after: seconds, or a date as the API writes one.
    """

    def __init__(self, log: Path, *, seed: int = 0) -> None:
        self.log = log
        self.answer: Callable[[str], str] = score
        self.faults: tuple[Fault, ...] = ()
        self.fault_probability = 0.0
        self.fault_of: Callable[[str], Fault | None] = lambda _prompt: None
        self.down: Fault | None = None
        self.fate_of: Callable[[str, int], Fate] = lambda _prompt, _batch: "succeeded"
        self.looks_in_progress = 0
        self.count_tokens: Callable[[str], int] = lambda text: len(text) // 4 + 1
        self.think_seconds = 0.0
        self.models = {"claude-test"}
        self.retry_after: float | str = 0.05
        self.slow_seconds = 10.0
        self.batches: dict[str, dict[str, Any]] = {}
        self._forgotten = 0
        self._planned: dict[Endpoint, list[Fault]] = {"messages": [], "create": [], "retrieve": [], "results": []}
        self._draw = random.Random(seed)
        self._lock = threading.RLock()
        self._events: list[dict[str, Any]] = []
        api = self

        class Handler(_Handler):
            served_by = api

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()

    def plan(self, endpoint: Endpoint, *faults: Fault) -> None:
        """Fail the next requests to an endpoint in these ways, one each."""
        with self._lock:
            self._planned[endpoint] += faults

    def events(self, what: str, endpoint: Endpoint | None = None) -> list[dict[str, Any]]:
        """List what was logged: `request`, `reply` or `billed`, in order."""
        with self._lock:
            found = [event for event in self._events if event["what"] == what]
        return [event for event in found if endpoint is None or event["endpoint"] == endpoint]

    @property
    def billed(self) -> Counter[str]:
        """Count how often each prompt was billed."""
        return Counter(event["prompt"] for event in self.events("billed"))

    @property
    def asked(self) -> Counter[str]:
        """Count how often each prompt was asked live, failures included."""
        return Counter(event["prompt"] for event in self.events("request", "messages"))

    def handing_over(self) -> AbstractContextManager[object]:
        """Keep readers of the events waiting while an answer is sent: who has it finds it billed."""
        return self._lock

    def record(self, what: str, **facts: Any) -> None:
        with self._lock:
            event = {"what": what, "at": time.monotonic(), **facts}
            self._events.append(event)
            with self.log.open("a") as file:
                file.write(json.dumps(event) + "\n")

    def draw(self, endpoint: Endpoint, prompt: str | None) -> Fault | None:
        with self._lock:
            if self.down:
                return self.down
            if self._planned[endpoint]:
                return self._planned[endpoint].pop(0)
            if self.faults and self._draw.random() < self.fault_probability:
                return self._draw.choice(self.faults)
        return None if prompt is None else self.fault_of(prompt)

    def message(self, params: dict[str, Any], fault: Fault | None) -> dict[str, Any]:
        """Answer one request as the API's `message` object."""
        prompt = _prompt(params)
        text, stop = self.answer(prompt), "end_turn"
        if fault == "refusal":
            text, stop = "", "refusal"
        elif fault in _CUT:
            text, stop = text[: len(text) // 2], _CUT[fault]
        return {
            "id": f"msg_{zlib.crc32(prompt.encode()):08x}",
            "type": "message",
            "role": "assistant",
            "model": params["model"],
            "content": [{"type": "text", "text": text}] if text else [],
            "stop_reason": stop,
            "stop_sequence": None,
            "usage": {
                "input_tokens": self.count_tokens(prompt),
                "output_tokens": min(self.count_tokens(text), params["max_tokens"]),
            },
        }

    def bill(self, params: dict[str, Any], message: dict[str, Any]) -> None:
        self.record("billed", prompt=_prompt(params), model=params["model"], **message["usage"])

    def new_batch(self, requests: list[dict[str, Any]]) -> str:
        with self._lock:
            number = self._forgotten + len(self.batches) + 1
            name = f"msgbatch_{number:04d}"
            self.batches[name] = {"looks": 0, "lines": [], "requests": requests}
        for request in reversed(requests):  # results come in any order
            prompt = _prompt(request["params"])
            fate = self.fate_of(prompt, number)
            kind = "errored" if fate == "refused" else fate
            line: dict[str, Any] = {"custom_id": request["custom_id"], "result": {"type": kind}}
            if fate in ("succeeded", "duplicate"):
                message = self.message(request["params"], self.fault_of(prompt))
                line["result"] = {"type": "succeeded", "message": message}
                self.batches[name]["billed"] = [*self.batches[name].get("billed", []), (request["params"], message)]
            elif kind == "errored":
                line["result"]["error"] = _error(400 if fate == "refused" else 500)
            self.batches[name]["lines"] += [line] * {"missing": 0, "duplicate": 2}.get(fate, 1)
        return name

    def forget_batches(self) -> None:
        """Know none of the batches any more, as after their 29 days."""
        self._forgotten += len(self.batches)
        self.batches.clear()

    def batch(self, name: str, *, look: bool = True) -> dict[str, Any]:
        """Describe a batch as the API's `message_batch` object."""
        batch = self.batches[name]
        batch["looks"] += look
        ended = batch["looks"] > self.looks_in_progress
        kinds = Counter(line["result"]["type"] for line in batch["lines"])
        return {
            "id": name,
            "type": "message_batch",
            "processing_status": "ended" if ended else "in_progress",
            "request_counts": {
                "processing": 0 if ended else len(batch["requests"]),
                **{kind: kinds[kind] if ended else 0 for kind in ("succeeded", "errored", "canceled", "expired")},
            },
            "created_at": "2026-01-01T00:00:00Z",
            "expires_at": "2026-01-02T00:00:00Z",
            "ended_at": "2026-01-01T00:01:00Z" if ended else None,
            "results_url": f"{self.url}/v1/messages/batches/{name}/results" if ended else None,
        }


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: clients are killed here on purpose."""


class _Handler(BaseHTTPRequestHandler):
    served_by: FakeAnthropic
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("content-length", 0))))
        if self.path == "/v1/messages":
            self._serve("messages", body)
        elif self.path == "/v1/messages/batches":
            self._serve("create", body)
        else:
            self._fail(404)

    def do_GET(self) -> None:
        if self.path.startswith("/v1/models/"):
            self._look_up(self.path.rpartition("/")[2])
            return
        found = re.fullmatch(r"/v1/messages/batches/(\w+)(/results)?", self.path)
        if not found or found[1] not in self.served_by.batches:
            self.served_by.record("request", endpoint="retrieve", path=self.path, prompt=None, key_ok=self._key_ok)
            self._fail(404)
            return
        self._serve("results" if found[2] else "retrieve", None, found[1])

    def _look_up(self, model: str) -> None:
        if not self._key_ok:
            self._fail(401)
        elif model not in self.served_by.models:
            self._fail(404)
        else:
            body = {"id": model, "type": "model", "display_name": model, "created_at": "2026-01-01T00:00:00Z"}
            self._send(200, json.dumps(body).encode())

    @property
    def _key_ok(self) -> bool:
        return API_KEY in (self.headers.get("x-api-key"), self.headers.get("authorization", "").removeprefix("Bearer "))

    def _serve(self, endpoint: Endpoint, body: Any, name: str = "") -> None:
        api = self.served_by
        prompt = _prompt(body) if endpoint == "messages" else None
        sent = (
            {key: body.get(key) for key in ("model", "temperature", "max_tokens", "output_config")}
            if endpoint == "messages"
            else {}
        )
        api.record("request", endpoint=endpoint, path=self.path, prompt=prompt, key_ok=self._key_ok, **sent)
        if not self._key_ok:
            self._fail(401)
            return
        if problem := _problem(endpoint, body, self.headers.get("anthropic-version")):
            self._fail(400, problem)
            return
        fault = api.draw(endpoint, prompt)
        if fault in _STATUS:
            self._fail(_STATUS[fault], retry_after=api.retry_after if fault.endswith("retry-after") else None)
        elif fault == "dropped":
            api.record("reply", endpoint=endpoint, status=None, fault=fault)
            self._reset()
        elif fault == "slow" and self._hangs_up_within(api.slow_seconds):
            api.record("reply", endpoint=endpoint, status=None, fault=fault)
            self.close_connection = True
        else:
            self._succeed(endpoint, body, name, fault)

    def _succeed(self, endpoint: Endpoint, body: Any, name: str, fault: Fault | None) -> None:
        api = self.served_by
        bills: list[tuple[dict[str, Any], dict[str, Any]]] = []
        if endpoint == "messages":
            message = api.message(body, fault)
            time.sleep(api.think_seconds)
            text, bills = json.dumps(message), [(body, message)]
        elif endpoint == "create":
            if self._spoil(json.dumps(api.message(body["requests"][0]["params"], None)), fault):
                return
            name = api.new_batch(body["requests"])
            text, bills = json.dumps(api.batch(name, look=False)), api.batches[name].get("billed", [])
        elif endpoint == "retrieve":
            text = json.dumps(api.batch(name))
        else:
            text = "".join(json.dumps(line) + "\n" for line in api.batches[name]["lines"])
        if self._spoil(text, fault):
            return
        if self._hangs_up_within(0):
            self.close_connection = True
            return
        with api.handing_over():
            self._send(200, text.encode(), kind="application/x-jsonl" if endpoint == "results" else "application/json")
            for params, message in bills:
                api.bill(params, message)
            api.record("reply", endpoint=endpoint, status=200, fault=fault)

    def _spoil(self, text: str, fault: Fault | None) -> bool:
        """Send half of a body, or another one, where the fault is that."""
        if fault not in ("cut", "garbled", "page"):
            return False
        half = text.encode()[: len(text.encode()) // 2].rstrip(b"\n")
        self.served_by.record("reply", endpoint="messages", status=200, fault=fault)
        if fault == "page":
            self._send(200, b"<html>Please log in</html>", kind="text/html")
            return True
        self._send(200, half, length=len(text.encode()) if fault == "cut" else len(half))
        if fault == "cut":
            self.close_connection = True
        return True

    def _fail(self, status: int, message: str = "as planned", retry_after: float | str | None = None) -> None:
        self.served_by.record("reply", endpoint="", status=status, fault=str(status), path=self.path)
        headers = {} if retry_after is None else {"retry-after": str(retry_after)}
        self._send(status, json.dumps(_error(status, message)).encode(), headers=headers)

    def _send(
        self,
        status: int,
        body: bytes,
        *,
        kind: str = "application/json",
        length: int | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        lines = {"content-type": kind, "content-length": str(len(body) if length is None else length), **(headers or {})}
        head = f"HTTP/1.1 {status} Planned\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items()) + "\r\n"
        self.connection.sendall(head.encode() + body)

    def _hangs_up_within(self, seconds: float) -> bool:
        readable, _, _ = select.select([self.connection], [], [], seconds)
        try:
            return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""
        except OSError:
            return True

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Print nothing."""


def _prompt(params: dict[str, Any]) -> str:
    return params["messages"][0]["content"]


def _problem(endpoint: Endpoint, body: Any, version: str | None) -> str:
    """Say what the real API would not accept in a request."""
    sampling = {"temperature"} if version == "2023-06-01" else set()  # the API version 2026-10-21 refuses it
    if endpoint == "create":
        names = [request["custom_id"] for request in body["requests"]]
        if not names or len(set(names)) < len(names) or not all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name in names):
            return "custom_id"
    if body is None:
        return ""
    each: Iterable[Any] = [request["params"] for request in body["requests"]] if endpoint == "create" else [body]
    needed, known = {"model", "messages", "max_tokens"}, {"output_config", *sampling}
    return next((str(sorted(params)) for params in each if not needed <= set(params) <= needed | known), "")


def _error(status: int, message: str = "as planned") -> dict[str, Any]:
    return {"type": "error", "error": {"type": _ERROR_TYPES[status], "message": message}, "request_id": "req_fake"}
