"""`gansegctl inspect` as a shell sees it."""

from __future__ import annotations

import pytest

BAD = {
    "a png as checkpoint": (("inspect", "{png}"), 2, "a PNG image"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_loses_nothing(case, refused):
    refused(*BAD[case])
