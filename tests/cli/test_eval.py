"""`gansegctl eval` as a shell sees it."""

from __future__ import annotations

import pytest

BAD = {
    "no subject": (("eval", "{new}", "--against", "demo"), 2, "no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_loses_nothing(case, refused):
    refused(*BAD[case])
