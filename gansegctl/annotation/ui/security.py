"""The checks before every request: one token, this machine's names only, no other origin, no large upload.

The threats are other people's pages in the same browser (forged requests, DNS rebinding, framing), other users of the
same machine, and clients that send without end. Cookies of 127.0.0.1 are shared by all its ports, and SameSite knows no
ports: hence the port in the cookie's name, and the check of Origin and Sec-Fetch-Site on top of it.
"""

from __future__ import annotations

import hmac
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADER = "x-gansegctl-token"
LOCAL = ("127.0.0.1", "localhost", "[::1]")

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}


class TooLarge(Exception):
    """A body that goes on beyond the limit."""


class SecurityMiddleware:
    """ASGI: lets a request through to `app` only with the token, from this machine's own page, below `limit` bytes."""

    def __init__(self, app: ASGIApp, token: str, cookie: str, limit: int) -> None:
        self.app, self.token, self.cookie, self.limit = app, token, cookie, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return

        async def hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
            await send(message)

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, hardened)
            return
        got, began = 0, False

        async def counted() -> Message:
            nonlocal got
            message = await receive()
            got += len(message.get("body", b""))
            if got > self.limit:
                raise TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal began
            if got > self.limit:  # the application's answer to the exception: 413 is clearer
                return
            began = True
            await hardened(message)

        try:
            await self.app(scope, counted, watched)
        except TooLarge:
            if not began:
                await self._too_large()(scope, receive, hardened)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        name = host.rsplit(":", 1)[0] if host.rpartition(":")[2].isdigit() else host
        if name.lower() not in LOCAL or len(headers.getlist("host")) != 1:
            return _refused(403, f"This page is for this machine only ({', '.join(LOCAL)}), not for that host name.")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}".lower(), f"https://{host}".lower()):
            return _refused(403, "A page of another origin may not use this one.")
        opening = scope["path"] == "/" and scope["method"] == "GET" and self._is_token(_query_token(scope))
        if headers.get("sec-fetch-site", "none") not in ("same-origin", "none") and not opening:
            return _refused(403, "A page of another origin may not use this one.")
        if not (opening or self._is_token(headers.get(HEADER, "")) or self._is_token(self._cookie_token(headers))):
            return _refused(401, "Open the address that `gansegctl annotate --ui` printed: it holds the token.")
        if scope["method"] not in ("GET", "HEAD", "POST"):
            return _refused(405, "GET and POST only.")
        if scope["method"] == "POST" and headers.get("content-type", "").partition(";")[0].strip() != (
            "application/json"
        ):
            return _refused(415, "JSON only.")
        length = headers.get("content-length", "0")
        if not length.isdigit() or int(length) > self.limit:
            return self._too_large()
        return None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode())

    def _cookie_token(self, headers: Headers) -> str:
        try:
            found = SimpleCookie(headers.get("cookie", "")).get(self.cookie)
        except CookieError:
            return ""
        return found.value if found else ""

    def _too_large(self) -> Response:
        return _refused(413, f"At most {self.limit} bytes.")


def _refused(status: int, why: str) -> Response:
    # Connection: close: the rest of a body that nobody will read must not be waited for
    return PlainTextResponse(why + "\n", status, {"Connection": "close"})


def _query_token(scope: Scope) -> str:
    return parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
