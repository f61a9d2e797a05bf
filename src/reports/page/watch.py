"""The page of a study at work: a server for this machine alone, whose page asks for news every few seconds."""

import errno
import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from src.reports.page.render import as_json, render

ADDRESS = "127.0.0.1"
HOSTS = ("127.0.0.1", "localhost")  # with any port: tunnels have their own
POLL = 3.0  # seconds between two questions of a page
FRESH = 2.0  # seconds for which an answer is good for all pages


def serve(make_document: Callable[[], Mapping[str, Any]], port: int) -> None:
    """Serves the page until Ctrl-C.

    Args:
        make_document: gives the document as it is now; called at most every `FRESH` seconds.
        port: 0 for any that is free.

    Raises:
        ValueError: the port can't be had.
    """
    with make_server(make_document, port) as server:
        print(f"http://{ADDRESS}:{server.server_address[1]}/ follows the study; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


def make_server(make_document: Callable[[], Mapping[str, Any]], port: int) -> ThreadingHTTPServer:
    """The server, bound to its port; see `serve`."""
    latest = _Latest(make_document)

    class Handler(BaseHTTPRequestHandler):
        timeout = 60  # seconds for a connection to ask, whose thread would stay else

        def do_GET(self) -> None:
            # A page from elsewhere whose name was made to point here says so in its Host.
            if self.headers.get("Host", "").partition(":")[0] not in HOSTS:
                self._answer(HTTPStatus.FORBIDDEN, "text/plain", b"only for this machine's own address\n")
                return
            if self.path not in ("/", "/data.json"):
                self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"there is / and /data.json\n")
                return
            try:
                document, data, version = latest.get()
            except Exception as error:  # whatever is wrong with the study, the server goes on, and the page says it
                self._answer(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", f"{error}\n".encode())
                return
            if self.path == "/":
                self._answer(HTTPStatus.OK, "text/html", render(document, poll=POLL).encode())
            elif self.headers.get("If-None-Match") == version:
                self._answer(HTTPStatus.NOT_MODIFIED, "application/json", b"", version)
            else:
                self._answer(HTTPStatus.OK, "application/json", data, version)

        def _answer(self, status: HTTPStatus, kind: str, body: bytes, version: str = "") -> None:
            self.send_response(status)
            self.send_header("Content-Type", f"{kind}; charset=utf-8")
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
            if version:
                self.send_header("ETag", version)
            if status != HTTPStatus.NOT_MODIFIED:
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Nothing: a line every few seconds would hide what matters."""

    try:
        return _Server((ADDRESS, port), Handler)
    except OverflowError:
        raise ValueError(f"port {port} must lie between 0 and 65535; 0 takes one that is free") from None
    except OSError as error:
        why = "in use" if error.errno == errno.EADDRINUSE else f"not to be had ({error.strerror})"
        raise ValueError(f"port {port} is {why}; give another one, or 0 for any that is free") from None


class _Server(ThreadingHTTPServer):
    daemon_threads = True  # an open page must not keep the process
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a page that was closed while it was answered is no error."""


class _Latest:
    """The document, made anew when somebody asks and it is older than `FRESH`."""

    def __init__(self, make_document: Callable[[], Mapping[str, Any]]) -> None:
        self.make_document = make_document
        self.lock = threading.Lock()
        self.made = -FRESH
        self.answer: tuple[Mapping[str, Any], bytes, str] | None = None

    def get(self) -> tuple[Mapping[str, Any], bytes, str]:
        """The document, its JSON and a version of it."""
        with self.lock:
            if self.answer is None or time.monotonic() - self.made >= FRESH:
                document = self.make_document()
                data = as_json(document).encode()
                self.answer = document, data, f'"{hashlib.sha256(data).hexdigest()[:20]}"'
                self.made = time.monotonic()
            return self.answer
