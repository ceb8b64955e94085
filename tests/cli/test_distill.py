"""`gansegctl distill` as a shell sees it."""

from __future__ import annotations

import pytest

BAD = {
    "a split of a dataset": (("distill", "{data}", "-o", "{new}.safetensors", "--split", "0"), 2, "--split 0"),
    "an undistillable set": (("distill", "{data}", "-o", "{new}.safetensors"), 4, "annotate"),
    "a split of no real images": (("distill", "{data}", "-o", "{new}.safetensors", "--real-split", "0"), 2, "--real"),
    "real images nowhere": (("distill", "{data}", "-o", "{new}.safetensors", "--real", "{new}"), 2, "no such file"),
    "a share of all": (
        ("distill", "{data}", "-o", "{new}.safetensors", "--real", "{data}", "--real-share", "1"),
        2,
        "--real-share",
    ),
    "a student without suffix": (("distill", "{data}", "-o", "{new}"), 2, ".safetensors"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named_and_loses_nothing(case, refused):
    refused(*BAD[case])
