"""`gansegctl train` as a shell sees it."""

from __future__ import annotations

from PIL import Image


def test_train_resumes(tmp_path, call):
    for i, colour in enumerate(((200, 0, 0), (0, 200, 0), (0, 0, 200))):
        Image.new("RGB", (40, 36), colour).save(tmp_path / f"{i}.png")
    small = ("--resolution", "32", "--channel-base", "64", "--channel-max", "8", "--batch-size", "4")
    out = tmp_path / "out" / "g.safetensors"
    assert call("train", tmp_path, "-o", out, "--images-seen", "4", *small)[0] == 0
    first = out.read_bytes()
    status, _, _ = call("train", tmp_path, "-o", out, "--images-seen", "8", *small, "--json")
    assert status == 0
    assert out.read_bytes() != first
    assert out.with_suffix(".png").is_file()
    assert call("generate", "--generator", out, "-n", "2", "-o", tmp_path / "d")[0] == 0
