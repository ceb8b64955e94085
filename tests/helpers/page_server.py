"""The page's server on a real socket, in a thread."""

from __future__ import annotations

import os
import re
import socket
import threading

import httpx
from helpers.backend_of_squares import SEEDS, backend, paint

from gansegctl.annotation.ui.serve import serve
from gansegctl.errors import UsageError


class Served:
    """`serve` over the backend of squares: `url` once it listens, `session` once it ends, `error` if it is refused."""

    def __init__(self, folder, port=0):
        self.url, self.session, self.error = None, None, None
        ready = threading.Event()

        def opened(url):
            self.url = url
            ready.set()

        def run():
            try:
                self.session = serve(folder, backend(), SEEDS, port, opened)
            except UsageError as e:
                self.error = e
                ready.set()

        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()
        assert ready.wait(10)

    @property
    def address(self):
        return re.fullmatch(r"http://(127\.0\.0\.1):(\d+)/\?token=([\w-]{43})", self.url).groups()

    def raw(self, data: bytes) -> bytes:
        host, port, _ = self.address
        with socket.create_connection((host, int(port)), timeout=5) as link:
            link.sendall(data)
            return link.recv(65536)

    def ask(self, method, path, body=None):
        host, port, token = self.address
        headers = {"X-Gansegctl-Token": token}
        return httpx.request(
            method, f"http://{host}:{port}{path}", json=body, headers=headers, trust_env=False, verify=False
        )

    def finish(self):
        assert self.ask("POST", "/api/strokes", paint(os.urandom(8).hex(), [0, 5])).status_code == 200
        assert self.ask("POST", "/api/finish", {}).status_code == 200
        self.thread.join(10)
        assert not self.thread.is_alive()
