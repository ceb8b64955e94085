"""`gansegctl demo` as a shell sees it."""

from __future__ import annotations

import json


def test_scenes(tmp_path, call):
    status, out, _ = call("demo", "scenes", "-n", "3", "--resolution", "32", "-o", tmp_path / "s", "--json")
    assert status == 0
    assert json.loads(out)["classes"][5] == "nose"
    assert call("verify", tmp_path / "s")[0] == 0
