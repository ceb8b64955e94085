"""`gansegctl predict` as a shell sees it."""

from __future__ import annotations

import pytest

BAD = {
    "an image as student": (("predict", "{png}", "{png}", "-o", "{new}"), 2, "not a safetensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_loses_nothing(case, refused):
    refused(*BAD[case])
