"""Serve one session on loopback until the annotator is done."""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import uvicorn

from gansegctl.annotation.ui.app import make_app
from gansegctl.annotation.ui.backend import Backend
from gansegctl.annotation.ui.refit import Refitter
from gansegctl.annotation.ui.session import Session
from gansegctl.errors import UsageError

ADDRESS = "127.0.0.1"
ADMISSION = ".ui-session.json"


def serve(folder: Path, backend: Backend, seeds: Sequence[int], port: int, opened: Callable[[str], None]) -> Session:
    """Blocks until "Finish" on the page, or until interrupted; returns the session, closed.

    Its `finished` holds the seeds of the masks that were written, and is None where the page was interrupted.

    opened(url) is called once the address is known. port: 0 for any; the port and the token of a session that broke off
    are used again, so that a page that is still open goes on by itself. Errors: as `Session`; UsageError for a port
    that is taken.
    """
    session = Session(folder, backend, seeds)
    refitter = None
    try:
        token, before = _admission(session.folder)
        listening = _listen(port or before, fallback=not port)
        port = listening.getsockname()[1]
        _remember(session.folder, token, port)
        refitter = Refitter(backend.propose)
        refitter.ask(session.revision, session.masks())

        def finished() -> None:
            server.should_exit = True

        app = make_app(session, refitter, token, f"gansegctl-{port}", finished)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            ws="none",
        )
        server = uvicorn.Server(config)
        opened(f"http://{ADDRESS}:{port}/?token={token}")
        server.run(sockets=[listening])
        if session.finished is not None:
            (session.folder / ADMISSION).unlink(missing_ok=True)
        return session
    finally:
        if refitter is not None:
            refitter.close()
        session.close()


def _admission(folder: Path) -> tuple[str, int]:
    """The token and port of a session that broke off, else a new token and port 0."""
    try:
        kept = json.loads((folder / ADMISSION).read_text())
        token, port = str(kept["token"]), int(kept["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return secrets.token_urlsafe(32), 0
    return (token, port) if len(token) >= 43 and 0 < port < 65536 else (secrets.token_urlsafe(32), 0)


def _remember(folder: Path, token: str, port: int) -> None:
    path = folder / ADMISSION
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)  # for this user only, from the first byte
    with os.fdopen(handle, "w") as file:
        json.dump({"token": token, "port": port}, file)


def _listen(port: int, fallback: bool) -> socket.socket:
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((ADDRESS, port))
        taken.listen()  # before the address is printed: a quick browser waits instead of being refused
    except OSError as e:
        taken.close()
        if fallback and port:
            return _listen(0, fallback=False)
        raise UsageError(f"got --port {port}: {e}", wanted="a free port", remedy="leave --port out") from None
    return taken
