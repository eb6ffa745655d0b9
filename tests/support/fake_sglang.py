"""A server that answers as SGLang does for one model, and whose answer to any one call can be replaced."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Change = Callable[[Any], Any]


class _Listening(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024  # connections that come at once, of which five are kept otherwise and some are lost


class FakeSglang:
    """Every completion is five ids and a stop id.

    Args:
        version: Fingerprint of the weights that it claims to serve.
        stop_id: What ends its completions.
    """

    def __init__(self, version: str, stop_id: int) -> None:
        self.version, self.stop_id = version, stop_id
        self.changes: dict[str, Change] = {}  # path → what is sent instead of its answer: bytes, or a JSON value
        self.url = ""
        self._counting = threading.Lock()
        self.at_once = self.most_at_once = 0  # requests to /generate

    @contextmanager
    def running(self) -> Iterator[FakeSglang]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                path = self.path.partition("?")[0]
                fake.count(path, 1)
                value = fake.answer(path, json.loads(body or b"{}"))
                value = fake.changes.get(path, lambda same: same)(value)
                content = value if isinstance(value, bytes) else json.dumps(value).encode()
                fake.count(path, -1)
                self.send_response(404 if value is None else 200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_POST = do_GET  # noqa: N815 - the name that the library calls

        server = _Listening(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()

    def count(self, path: str, change: int) -> None:
        """A request comes or goes."""
        if path == "/generate":
            with self._counting:
                self.at_once += change
                self.most_at_once = max(self.most_at_once, self.at_once)

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        """What SGLang answers to a call."""
        load = {"num_running_reqs": 0, "num_waiting_reqs": 0, "max_running_requests": 64, "token_usage": 0.0}
        return {
            "/health_generate": b"",
            "/model_info": {"weight_version": self.version, "model_path": "/x", "architectures": ["LlamaForCausalLM"]},
            "/server_info": {"dtype": "float32", "device": "cuda", "tp_size": 1, "pp_size": 1, "startup_time": 1},
            "/v1/models": {"data": [{"id": "x", "max_model_len": 512}]},
            "/v1/loads": {"version": "0.5.23", "loads": [load | {"max_total_num_tokens": 100000}]},
            "/generate": self._generated(body) if "sampling_params" in body else None,
        }.get(path)

    def _generated(self, body: dict[str, Any]) -> dict[str, Any]:
        meta: dict[str, Any] = {"weight_version": self.version, "cached_tokens": 0}
        if body["sampling_params"]["max_new_tokens"] == 0:
            start, ids = body["logprob_start_len"], body["input_ids"]
            entries = [[None if place == start else -1.0, ids[place], None] for place in range(start, len(ids))]
            tops = [None, *([[-1.0, 5, None], [-2.0, 6, None]] for _ in entries[1:])]
            return {
                "meta_info": meta
                | {
                    "finish_reason": {"type": "length"},
                    "input_token_logprobs": entries,
                    "input_top_logprobs": tops,
                }
            }
        ids = [5, 6, 7, 8, 9, self.stop_id]
        return {
            "output_ids": ids,
            "meta_info": meta
            | {
                "finish_reason": {"type": "stop", "matched": ids[-1]},
                "output_token_logprobs": [[-0.5, token, None] for token in ids],
            },
        }
