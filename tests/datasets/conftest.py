"""A file server on loopback that counts what it is asked for and misbehaves as told."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class FileServer(ThreadingHTTPServer):
    """Gives `files[path]`; `status[path]` lists the codes of the first answers, `truncated` paths end half-way.

    `endless` ones never do.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.status: dict[str, list[int]] = {}
        self.truncated: set[str] = set()
        self.endless: set[str] = set()
        self.requests: Counter[str] = Counter()
        self.release = threading.Event()  # bodies stop half-way until it is set
        self.release.set()

    def address(self, folder: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{folder}/"


class Handler(BaseHTTPRequestHandler):
    server: FileServer

    def do_GET(self) -> None:
        server, path = self.server, self.path
        server.requests[path] += 1
        codes = server.status.get(path)
        if codes or path not in server.files:
            self.send_error(codes.pop(0) if codes else 404)
            return
        body = server.files[path]
        self.send_response(200)
        if path in server.endless:
            self.end_headers()
            with suppress(ConnectionError):
                while True:
                    self.wfile.write(body)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        half = len(body) // 2
        self.wfile.write(body[:half])
        self.wfile.flush()
        server.release.wait(10)
        if path not in server.truncated:
            self.wfile.write(body[half:])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FileServer]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with FileServer() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.release.set()
        running.shutdown()
        thread.join()
