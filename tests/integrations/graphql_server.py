"""A small local server that answers what wandb asks of its own, and remembers what it was asked."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PROJECT = {"id": "project-id", "name": "speech", "entity": {"id": "entity-id", "name": "someone"}}
ANSWERS: dict[str, Any] = {
    "Viewer": {"viewer": {"id": "viewer-id", "entity": "someone", "flags": "{}", "teams": {"edges": []}}},
    "UpsertBucket": {
        "upsertBucket": {
            "bucket": {"id": "bucket-id", "name": "run", "project": PROJECT, "historyLineCount": 0},
            "inserted": True,
        }
    },
    "NotifyScriptableRunAlert": {"notifyScriptableRunAlert": {"success": True}},
    "CreateRunFiles": {"createRunFiles": {"runID": "bucket-id", "uploadHeaders": [], "files": []}},
}


class Handler(BaseHTTPRequestHandler):
    """Notes a GraphQL operation and answers it; anything else (file stream, telemetry) gets an empty answer."""

    server: Recorder

    def log_message(self, *arguments: object) -> None:
        """Say nothing on stderr."""

    def do_POST(self) -> None:
        """Answer one request in JSON."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        answer = json.dumps(self.server.answer(body) if self.path == "/graphql" else {}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)


class Recorder(ThreadingHTTPServer):
    """Answers on a free port of this machine.

    Attributes
    ----------
    operations : list of (name, variables)
        GraphQL operations in the order of their arrival.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.operations: list[tuple[str, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        """The address for ``WANDB_BASE_URL``."""
        return f"http://127.0.0.1:{self.server_port}"

    def variables(self, operation: str) -> list[dict[str, Any]]:
        """The variables of every operation of that name."""
        return [variables for name, variables in self.operations if name == operation]

    def answer(self, body: bytes) -> dict[str, Any]:
        """What the server says to a GraphQL query."""
        query = json.loads(body)
        self.operations.append((query["operationName"], query.get("variables") or {}))
        return {"data": ANSWERS.get(query["operationName"], {})}


@contextmanager
def serving() -> Iterator[Recorder]:
    """A server that runs while the block does."""
    with Recorder() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
