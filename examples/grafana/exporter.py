"""Serves the metrics of tmemfs mounts to Prometheus, which asks over HTTP.

python examples/grafana/exporter.py [PORT]

`http://127.0.0.1:PORT/metrics?target=MOUNTPOINT` is `MOUNTPOINT/.tmemfs/metrics`. Only this machine
is answered, and only for mounts of tmemfs.
"""

import sys
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from tmemfs.linux import system

PORT = 9467


class Handler(BaseHTTPRequestHandler):
    """One scrape."""

    def do_GET(self) -> None:
        """Answer with the metrics of the mount that is asked for."""
        url = urlsplit(self.path)
        target = parse_qs(url.query).get("target", [""])[0]
        if url.path != "/metrics" or not any(
            mount.mountpoint == target for mount in system.tmemfs_mounts()
        ):
            self.send_error(HTTPStatus.NOT_FOUND, "no such mount")
            return
        file = Path(target, ".tmemfs", "metrics")
        try:
            # A daemon that does not answer must not hold this thread for ever.
            text = system.within(system.ANSWER_SECONDS, file.read_bytes)
        except OSError as error:
            self.send_error(HTTPStatus.SERVICE_UNAVAILABLE, error.strerror)
            return
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_: object) -> None:
        """Say nothing of each scrape."""


def main() -> None:
    """Serve until interrupted."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else PORT
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}/metrics?target=MOUNTPOINT", flush=True)
        with suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
