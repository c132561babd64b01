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
BUCKET = {
    "id": "bucket-id",
    "name": "run",
    "displayName": "run",
    "description": None,
    "config": None,
    "sweepName": None,
    "project": PROJECT,
    "historyLineCount": 0,
}
VIEWER = {"id": "viewer-id", "entity": "someone", "username": "someone", "email": "", "flags": "{}", "teams": {"edges": []}}
ANSWERS: dict[str, Any] = {
    "Viewer": {"viewer": VIEWER},
    "UpsertBucket": {"upsertBucket": {"bucket": BUCKET, "inserted": True}},
    "NotifyScriptableRunAlert": {"notifyScriptableRunAlert": {"success": True}},
    "CreateRunFiles": {"createRunFiles": {"runID": "bucket-id", "uploadHeaders": [], "files": []}},
}


class Recorder(ThreadingHTTPServer):
    """Answers on a free port of this machine.

    Attributes
    ----------
    operations : list of (name, variables)
        GraphQL operations in the order of their arrival.
    history : list of dict
        Rows of the run that arrived by file stream.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.operations: list[tuple[str, dict[str, Any]]] = []
        self.history: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        """The address for ``WANDB_BASE_URL``."""
        return f"http://127.0.0.1:{self.server_port}"

    def variables(self, operation: str) -> list[dict[str, Any]]:
        """The variables of every operation of that name."""
        return [variables for name, variables in self.operations if name == operation]

    def answer(self, path: str, body: bytes) -> dict[str, Any]:
        """What the server says to a request."""
        if path == "/graphql":
            query = json.loads(body)
            self.operations.append((query["operationName"], query.get("variables") or {}))
            return {"data": ANSWERS.get(query["operationName"], {})}
        if path.endswith("/file_stream"):
            lines = json.loads(body).get("files", {}).get("wandb-history.jsonl", {}).get("content", [])
            self.history += [json.loads(line) for line in lines]
        return {}


class Handler(BaseHTTPRequestHandler):
    """Reads a request, and lets the server answer in JSON."""

    server: Recorder

    def log_message(self, *arguments: object) -> None:
        """Say nothing on stderr."""

    def do_POST(self) -> None:
        """Answer one request."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        answer = json.dumps(self.server.answer(self.path, body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_PUT = do_POST


@contextmanager
def serving() -> Iterator[Recorder]:
    """A server that runs while the block does."""
    with Recorder() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()
