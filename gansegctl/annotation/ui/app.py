"""The page's server: a fixed table of routes over one session. No request names a file: images are numbers."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gansegctl.annotation.ui.backend import Proposal, Proposals
from gansegctl.annotation.ui.refit import Refitter
from gansegctl.annotation.ui.security import SecurityMiddleware
from gansegctl.annotation.ui.session import Session
from gansegctl.errors import GansegError, UsageError
from gansegctl.io.image import as_rgb

SCRIPTS = ("app", "page", "tools", "input", "canvas", "strokes", "proposals", "api")
PAGE = {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    **{f"{name}.js": "text/javascript; charset=utf-8" for name in SCRIPTS},
    "icon.svg": "image/svg+xml",
}
_UNSURE = 0.25  # a proposal's opacity where the segmenter knows nothing; its full colour where it is sure


def body_limit(size: tuple[int, int]) -> int:
    """Bytes that the largest honest stroke may take: every pixel a run of its own."""
    return max(1 << 20, 20 * size[0] * size[1])


def make_app(session: Session, refitter: Refitter, token: str, cookie: str, finished: Callable[[], None]) -> ASGIApp:
    """The ASGI application. `finished` is called once the masks are written and the answer is on its way."""
    files = {name: resources.files("gansegctl.annotation.ui").joinpath("page", name).read_bytes() for name in PAGE}

    def static(name: str) -> Callable[[Request], Response]:
        def answer(_: Request) -> Response:
            return Response(files[name], headers={"Content-Type": PAGE[name]})

        return answer

    async def index(request: Request) -> Response:
        response = static("index.html")(request)
        response.set_cookie(cookie, token, httponly=True, samesite="strict", path="/")
        return response

    def state(_: Request) -> Response:
        return JSONResponse(session.describe())

    def image(request: Request) -> Response:
        return _png(as_rgb(session.images[session.mask(_number(request, "place"))["exemplar"]].image))

    def mask(request: Request) -> Response:
        return JSONResponse(session.mask(_number(request, "place")))

    def parts(request: Request) -> Response:
        return _parts_response(session.parts(_number(request, "place"), _number(request, "level")))

    async def split(request: Request) -> Response:
        given = await _body(request)
        place, level = _number(request, "place"), _number(request, "level")
        return _parts_response(await run_in_threadpool(session.split, place, level, given.get("pixel")))

    async def stroke(request: Request) -> Response:
        given = await _body(request)
        answer = await run_in_threadpool(session.stroke, given)
        refitter.ask(session.revision, session.masks())
        return JSONResponse(answer)

    async def add(request: Request) -> Response:
        given = await _body(request)
        return JSONResponse(await run_in_threadpool(session.add, given.get("seed")))

    def proposals(_: Request) -> Response:
        found = refitter.latest
        about = {"pending": refitter.pending, "error": refitter.error, "revision": session.revision}
        return JSONResponse(about | {"proposals": None if found is None else _proposals_json(found, refitter.previous)})

    def proposal(request: Request) -> Response:
        found = _find(refitter.latest, _number(request, "seed"))
        kind = request.path_params["kind"]
        if kind == "image":
            return _png(as_rgb(found.image.image))
        if kind == "labels":
            return Response(found.labels.tobytes(), media_type="application/octet-stream")
        colours = np.array([*session.backend.labels.colours], np.uint8)[found.labels]
        alpha = (_UNSURE + (1 - _UNSURE) * (found.confidence / 255.0)) * 255
        return _png(np.concatenate([colours, alpha.round().astype(np.uint8)[..., None]], axis=2))

    async def finish(request: Request) -> Response:
        await _body(request)
        seeds = await run_in_threadpool(session.finish)
        finished()
        return JSONResponse({"seeds": list(seeds)})

    async def failed(_: Request, error: Exception) -> Response:
        if not isinstance(error, GansegError):
            raise error
        status = 400 if isinstance(error, UsageError) else 507
        return JSONResponse({"error": str(error)}, status)

    routes = [
        Route("/", index),
        *(Route(f"/{name}", static(name)) for name in PAGE if name != "index.html"),
        Route("/api/state", state),
        Route("/api/image/{place:int}", image),
        Route("/api/mask/{place:int}", mask),
        Route("/api/parts/{place:int}/{level:int}", parts),
        Route("/api/parts/{place:int}/{level:int}", split, methods=["POST"]),
        Route("/api/strokes", stroke, methods=["POST"]),
        Route("/api/add", add, methods=["POST"]),
        Route("/api/proposals", proposals),
        *(_proposal_route(kind, proposal) for kind in ("image", "labels", "overlay")),
        Route("/api/finish", finish, methods=["POST"]),
    ]
    app = Starlette(routes=routes, exception_handlers={GansegError: failed})
    return SecurityMiddleware(app, token, cookie, body_limit(session.backend.size))


def _proposal_route(kind: str, answer: Callable[[Request], Response]) -> Route:
    def named(request: Request) -> Response:
        request.path_params["kind"] = kind
        return answer(request)

    return Route(f"/api/proposal/{{seed:int}}/{kind}", named)


async def _body(request: Request) -> dict[str, Any]:
    try:
        given = json.loads(await request.body())
    except (ValueError, RecursionError):
        given = None
    if not isinstance(given, dict):
        raise UsageError("got a request without a JSON object", wanted="one")
    return given


def _number(request: Request, name: str) -> int:
    return int(request.path_params[name])


def _png(pixels: np.ndarray) -> Response:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "PNG", compress_level=3)
    return Response(stream.getvalue(), media_type="image/png")


def _parts_response(parts: np.ndarray) -> Response:
    return Response(parts.astype("<u4").tobytes(), media_type="application/octet-stream")


def _find(found: Proposals | None, seed: int) -> Proposal:
    for one in (*found.exemplars, *found.samples) if found else ():
        if one.image.seed == seed:
            return one
    raise UsageError(f"got seed {seed}", wanted="an image of the last refit")


def _proposals_json(found: Proposals, before: Proposals | None) -> dict[str, Any]:
    earlier = {p.image.seed: p.sure for p in (*before.exemplars, *before.samples)} if before else {}

    def row(p: Proposal) -> dict[str, Any]:
        gain = p.sure - earlier[p.image.seed] if p.image.seed in earlier else 0.0
        return {"seed": p.image.seed, "sure": p.sure, "gain": gain, "weakest": p.weakest, "why": p.image.why}

    return {
        "revision": found.revision,
        "fit_seconds": round(found.fit_seconds, 3),
        "seconds": round(found.seconds, 3),
        "exemplars": [row(p) for p in found.exemplars],
        "samples": [row(p) for p in found.samples],
        "advice": [{"seed": a.seed, "kind": a.kind, "why": a.why} for a in found.advice],
    }
