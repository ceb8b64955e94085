"""`gansegctl doctor` as a shell sees it."""

from __future__ import annotations

import json


def test_doctor(call):
    status, out, _ = call("doctor", "--json")
    assert status == 0
    assert json.loads(out)["backends"]["reference"] == "ready"
