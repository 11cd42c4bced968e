"""Numbers of the line for Prometheus, in its text format 0.0.4, served at /metrics."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from specialsam.core.errors import UsageError

Labels = tuple[tuple[str, str], ...]
"""Names and values."""
Numbers = Mapping[str, tuple[str, Mapping[Labels, float]]]
"""A help text and values by labels, by name; names that end in _total are counters."""


def text_of(numbers: Numbers) -> str:
    """In Prometheus' text format."""
    lines = []
    for name, (says, values) in numbers.items():
        lines.append(f"# HELP {name} {says}")
        lines.append(f"# TYPE {name} {'counter' if name.endswith('_total') else 'gauge'}")
        for labels, value in values.items():
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels)
            lines.append(f"{name}{{{inside}}} {value:.10g}" if inside else f"{name} {value:.10g}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class Metrics:
    """A small server in a thread of its own; `numbers` is asked at each look."""

    def __init__(self, port: int, numbers: Callable[[], Numbers], host: str = "127.0.0.1") -> None:
        """UsageError where the port is taken."""

        class Handler(BaseHTTPRequestHandler):
            timeout = 5

            def do_GET(self) -> None:
                body = text_of(numbers()).encode() if self.path.split("?")[0] == "/metrics" else b"see /metrics\n"
                self.send_response(200 if self.path.startswith("/metrics") else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing is printed."""

        try:
            self._server = ThreadingHTTPServer((host, port), Handler)
        except OSError as error:
            raise UsageError(
                f"expected a free port for --metrics, got {port} ({error.strerror}); choose another"
            ) from error
        self._server.daemon_threads = True
        self.port = int(self._server.server_address[1])
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
