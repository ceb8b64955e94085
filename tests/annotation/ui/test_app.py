"""The page's server, asked as a browser, a forger and a flood would ask it; no browser is needed here."""

from __future__ import annotations

import asyncio
import io
import json
import re
import socket
import stat
import time

import numpy as np
import pytest
from helpers.backend_of_squares import OFFERED, SEEDS, SIZE, backend, blank_masks, image, paint, parts
from PIL import Image

httpx = pytest.importorskip("httpx", reason="needs httpx (extra `test`)")
pytest.importorskip("starlette", reason="needs starlette (extra `ui`)")
pytest.importorskip("uvicorn", reason="needs uvicorn (extra `ui`)")

from helpers.page_server import Served  # noqa: E402

from gansegctl.annotation.ui.app import PAGE, body_limit, make_app  # noqa: E402
from gansegctl.annotation.ui.refit import Refitter  # noqa: E402
from gansegctl.annotation.ui.serve import ADMISSION  # noqa: E402
from gansegctl.annotation.ui.session import Session  # noqa: E402
from gansegctl.errors import GansegError  # noqa: E402

TOKEN, COOKIE, HOME = "t" * 43, "gansegctl-8000", "http://127.0.0.1:8000"


class Client:
    """The app without a network; every request carries the token unless told otherwise."""

    def __init__(self, app):
        self.app = app

    def __call__(self, method, path, token=TOKEN, **options):
        headers = ({"Cookie": f"{COOKIE}={token}"} if token else {}) | options.pop("headers", {})
        asyncio_options = {"transport": httpx.ASGITransport(self.app), "base_url": HOME, "verify": False}

        async def ask():
            async with httpx.AsyncClient(**asyncio_options) as client:
                return await client.request(method, path, headers=headers, **options)

        return asyncio.run(ask())

    def get(self, path, **options):
        return self("GET", path, **options)

    def post(self, path, body, **options):
        return self("POST", path, json=body, **options)


@pytest.fixture
def session(tmp_path):
    blank_masks(tmp_path)
    opened = Session(tmp_path, backend(), SEEDS)
    yield opened
    opened.close()


@pytest.fixture
def done():
    return []


@pytest.fixture
def client(session, done):
    refitter = Refitter(session.backend.propose, delay=0.01)
    yield Client(make_app(session, refitter, TOKEN, COOKIE, lambda: done.append(True)))
    refitter.close()


ROUTES = [
    ("GET", "/"), *(("GET", f"/{name}") for name in PAGE if name != "index.html"), ("GET", "/api/state"),
    ("GET", "/api/image/0"), ("GET", "/api/mask/0"), ("GET", "/api/parts/0/1"), ("POST", "/api/parts/0/1"),
    ("POST", "/api/strokes"), ("POST", "/api/add"), ("GET", "/api/proposals"), ("GET", "/api/proposal/70/image"),
    ("GET", "/api/proposal/70/labels"), ("GET", "/api/proposal/70/overlay"), ("POST", "/api/finish"), ("GET", "/no"),
]  # fmt: skip


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_nothing_answers_without_the_token(client, session, done, method, path):
    for token in ("", "T" * 43, TOKEN[:-1], TOKEN + "x", "é"):
        headers = {"X-Gansegctl-Token": token} if token.isascii() else {}
        answer = client(method, path, token="", headers=headers, json={} if method == "POST" else None)
        assert answer.status_code == 401, token
        assert TOKEN not in answer.text
    assert client(method, path + "?token=" + TOKEN[:-1], token="", json={}).status_code == 401
    assert (session.revision, done) == (0, [])


def test_the_printed_address_opens_the_page_and_leaves_a_strict_cookie(client):
    answer = client.get(f"/?token={TOKEN}", token="")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{COOKIE}={TOKEN};")
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie
    assert client.get("/api/state?token=" + TOKEN, token="").status_code == 401  # in addresses it opens the page only
    assert client.get("/api/state", token="", headers={"X-Gansegctl-Token": TOKEN}).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example"}, {"Host": "evil.example:8000"}, {"Host": "127.0.0.1.evil.example:8000"}, {"Host": ""},
        {"Host": "0.0.0.0:8000"}, {"Host": "localhost.evil.example"}, {"Origin": "http://evil.example"},
        {"Origin": "null"}, {"Origin": "http://127.0.0.1:9999"}, {"Origin": "http://localhost:8000"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ],
)  # fmt: skip
def test_other_origins_and_rebound_names_are_refused_even_with_the_token(client, session, headers):
    for method, path in ROUTES:
        assert client(method, path, headers=headers, json={} if method == "POST" else None).status_code == 403
    assert client.post("/api/strokes", paint("a", [0, 4]), headers=headers).status_code == 403
    assert session.revision == 0


def test_a_tunnel_to_another_port_is_welcome(client):
    headers = {"Host": "localhost:9000", "Origin": "http://localhost:9000", "Sec-Fetch-Site": "same-origin"}
    assert client.post("/api/strokes", paint("a", [0, 4]), headers=headers).status_code == 200
    assert client.get(f"/?token={TOKEN}", token="", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_forms_of_other_pages_cannot_post(client, session):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        body = json.dumps(paint("a", [0, 4])).encode()
        answer = client("POST", "/api/strokes", content=body, headers={"Content-Type": kind})
        assert answer.status_code == 415
    for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
        answer = client(method, "/api/strokes")
        assert answer.status_code == 405
        assert not [name for name in answer.headers if name.startswith("access-control")]
    assert session.revision == 0


def test_every_answer_forbids_what_a_page_does_not_need(client):
    for answer in (client.get("/"), client.get("/api/state"), client.get("/", token=""), client.get("/no")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert "http" not in policy and "*" not in policy
        wanted = {"x-content-type-options": "nosniff", "referrer-policy": "no-referrer", "cache-control": "no-store"}
        assert wanted.items() <= dict(answer.headers).items()


def test_the_page_names_nothing_outside_itself(client):
    for name in PAGE:
        text = client.get("/" if name == "index.html" else f"/{name}").text
        assert not re.findall(r"(?:https?:)?//[a-z0-9]+\.[a-z]", text.replace("http://www.w3.org/2000/svg", "")), name
        assert "style=" not in text and "eval(" not in text and "innerHTML" not in text, name


PATHS = [
    "/../setup.cfg", "/..%2f..%2fetc%2fpasswd", "/%2e%2e/%2e%2e/etc/passwd", "/page/index.html", "//etc/passwd",
    "/api/image/..%2f..%2fstrokes.jsonl", "/api/image/0/../../strokes.jsonl", "/api/mask/-1", "/api/mask/1e3",
    "/api/mask/9", "/api/mask/0%00", "/api/parts/0/7", "/api/parts/0/..", "/api/image/99999999999999999999999",
    "/api/proposal/../image", "/api/proposal/4/image", "/.ui-session.json", "/strokes.jsonl", "/app.js%00.html",
]  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_no_path_reaches_a_file(client, session, path):
    answer = client.get(path)
    assert answer.status_code in (400, 404), answer.text
    assert "root:" not in answer.text and "metadata" not in answer.text and '"kind"' not in answer.text


@pytest.mark.parametrize("given", ["../../x", {"a": 1}, None, 1.5, -1, 4, "70", [70]])
def test_no_body_reaches_a_file(client, session, given):
    before = sorted(p.name for p in session.folder.iterdir())
    assert client.post("/api/add", {"seed": given}).status_code == 400
    assert (
        client.post("/api/strokes", paint("a", [0, 4], exemplar=given if given != 1.5 else "../a")).status_code == 400
    )
    assert client.post("/api/parts/0/1", {"pixel": given if given != 4 else "4"}).status_code in (200, 400)
    assert sorted(p.name for p in session.folder.iterdir()) == before


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b"\xff", b'"' + b"a" * 99, b"[" * 100_000])
def test_bodies_that_are_no_object_are_refused(client, body):
    for path in ("/api/strokes", "/api/add", "/api/finish", "/api/parts/0/0"):
        answer = client("POST", path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, "JSON object" in answer.json()["error"]) == (400, True)


def test_a_large_body_is_refused_whether_or_not_it_says_so(client, session):
    big = {"Content-Type": "application/json", "Content-Length": str(10**9)}
    assert client("POST", "/api/strokes", content=b"{}", headers=big).status_code == 413
    sent = []

    async def endless():
        while True:
            sent.append(1 << 16)
            yield b" " * (1 << 16)

    answer = client("POST", "/api/strokes", content=endless(), headers={"Content-Type": "application/json"})
    assert (answer.status_code, session.revision) == (413, 0)
    assert sum(sent) <= body_limit(SIZE) + (1 << 17)


def test_painting_goes_to_disk_and_comes_back(client, session):
    answer = client.post("/api/strokes", paint("a", [0, 4, 20, 3])).json()
    assert (answer["changes"], answer["undo"], answer["painted"]) == (1, 1, round(7 / 192, 4))
    assert client.get("/api/mask/0").json()["mask"] == [1, 4, 255, 16, 1, 3, 255, 169]
    assert "a" in session.journal.path.read_text().splitlines()[-1]
    back = client.post("/api/strokes", {"kind": "undo", "id": "b", "exemplar": 0}).json()
    assert (back["mask"], back["redo"]) == ([255, 192], 1)


def test_images_parts_and_splits_are_those_of_the_backend(client):
    shown = Image.open(io.BytesIO(client.get("/api/image/1").content))
    np.testing.assert_array_equal(np.array(shown), image(9).image)
    found = np.frombuffer(client.get("/api/parts/0/2").content, "<u4").reshape(SIZE)
    np.testing.assert_array_equal(found, parts(5, 2))
    split = np.frombuffer(client.post("/api/parts/0/2", {"pixel": 0}).content, "<u4").reshape(SIZE)
    assert split[0, 0] == found[0, 0] and split[0, 3] != found[0, 0]


def test_every_stroke_brings_proposals_with_confidence_and_advice(client, session):
    client.post("/api/strokes", paint("a", [0, 4]))
    end = time.monotonic() + 5
    while (news := client.get("/api/proposals").json())["pending"] and time.monotonic() < end:
        time.sleep(0.01)
    told = news["proposals"]
    assert told["revision"] == session.revision == 1
    assert [p["seed"] for p in told["exemplars"]] == list(SEEDS)
    assert told["advice"] == [{"seed": OFFERED, "kind": "different", "why": "it is far away"}]
    assert told["samples"][0] | {"why": ""} == {
        "seed": OFFERED, "sure": 0.78, "gain": 0.0, "weakest": "hair", "why": ""
    }  # fmt: skip
    overlay = np.array(Image.open(io.BytesIO(client.get(f"/api/proposal/{OFFERED}/overlay").content)))
    assert overlay.shape == (*SIZE, 4)
    assert overlay[0, 0].tolist() == [200, 100, 50, round(255 * (0.25 + 0.75 * 200 / 255))]
    assert client.get(f"/api/proposal/{OFFERED}/labels").content == bytes([OFFERED % 3]) * 192
    assert client.post("/api/add", {"seed": OFFERED}).json()["exemplar"] == 2


def test_a_full_disk_is_an_answer_that_asks_to_send_again(client, session, monkeypatch):
    def full(record):
        raise GansegError("got no space", remedy="free space")

    monkeypatch.setattr(session.journal, "append", full)
    answer = client.post("/api/strokes", paint("a", [0, 4]))
    assert (answer.status_code, "no space" in answer.json()["error"]) == (507, True)


def test_finish_writes_and_lets_go(client, session, done):
    assert client.post("/api/finish", {}).status_code == 400
    client.post("/api/strokes", paint("a", [0, 4]))
    assert client.post("/api/finish", {}).json() == {"seeds": [5]}
    assert done == [True]


def test_served_on_loopback_until_finish_and_a_gigabyte_is_refused_unread(tmp_path):
    blank_masks(tmp_path)
    served = Served(tmp_path)
    _, port, token = served.address
    kept = tmp_path / ADMISSION
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    head = (
        f"POST /api/strokes HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Gansegctl-Token: {token}\r\n"
        "Content-Type: application/json\r\nContent-Length: 1073741824\r\n\r\n{"
    )
    assert served.raw(head.encode()).startswith(b"HTTP/1.1 413")
    assert served.raw(head.replace(token, "x" * 43).encode()).startswith(b"HTTP/1.1 401")
    second = Served(tmp_path, 0)
    assert "another process" in str(second.error)
    served.finish()
    assert served.session.finished == (5,)
    assert not kept.exists()


def test_a_session_that_broke_off_comes_back_at_the_same_address(tmp_path):
    blank_masks(tmp_path)
    (tmp_path / ADMISSION).write_text(json.dumps({"token": "a" * 43, "port": 1}))  # a port that cannot be had
    served = Served(tmp_path)
    assert served.address[2] == "a" * 43
    kept = json.loads((tmp_path / ADMISSION).read_text())
    assert kept["port"] == int(served.address[1])
    served.finish()
    (tmp_path / ADMISSION).write_text(json.dumps(kept))
    again = Served(tmp_path)
    assert again.url == served.url
    again.finish()
    (tmp_path / ADMISSION).write_text(json.dumps(kept | {"token": "short"}))
    third = Served(tmp_path)
    assert third.address[2] != "short"
    third.finish()


def test_a_port_that_was_asked_for_and_is_taken_is_said(tmp_path):
    blank_masks(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        served = Served(tmp_path, taken.getsockname()[1])
    assert "--port" in str(served.error)
