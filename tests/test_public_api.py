"""`import gansegctl`: what it offers, and that nothing heavy is imported before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

import gansegctl
from gansegctl.errors import UsageError

WANTED = {
    "open_generator",
    "open_segmenter",
    "open_student",
    "open_dataset",
    "FeaturePyramid",
    "LabelMap",
    "Exemplar",
    "get_method",
    "__version__",
}


def test_the_public_names_are_there():
    assert set(gansegctl.__all__) >= WANTED
    assert set(gansegctl.__all__) <= set(dir(gansegctl))
    assert all(getattr(gansegctl, name) is not None for name in gansegctl.__all__)


def test_importing_it_imports_nothing_heavy():
    code = (
        "import sys, gansegctl\n"
        "heavy = ('torch', 'numpy', 'h5py', 'PIL', 'click')\n"
        "print([m for m in heavy if m in sys.modules], gansegctl.LabelMap(('a', 'b')).names,"
        " 'torch' in sys.modules, gansegctl.FeaturePyramid.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] ('a', 'b') False FeaturePyramid True"


def test_a_name_that_is_not_there_is_told_with_those_that_are():
    with pytest.raises(AttributeError, match="no attribute 'open_model'; it offers open_generator"):
        gansegctl.open_model  # noqa: B018


def test_samples_are_those_of_the_command_line(generator_file, tmp_path, call):
    assert call("generate", "--generator", generator_file, "--seeds", "3-7", "-o", tmp_path / "d")[0] == 0
    images, annotation = gansegctl.sample(gansegctl.open_generator(str(generator_file)), range(3, 8), batch_size=2)
    assert annotation is None
    dataset = gansegctl.open_dataset(tmp_path / "d")
    assert dataset.fields == ("image",) and len(dataset) == 5
    for item, image in zip(dataset, images, strict=False):
        assert (item["image"].int() - image.int()).abs().max() <= 1


def test_no_seeds_are_told(generator_file):
    with pytest.raises(UsageError, match="got no seeds"):
        gansegctl.sample(gansegctl.open_generator(str(generator_file)), [])


def test_layouts_and_ranges_are_the_same_everywhere(generator_file):
    generator = gansegctl.open_generator(str(generator_file))
    ws = gansegctl.latents_of_seeds(generator, [3, 4])
    synthesis = generator.synthesize(ws, "const")
    images, _ = gansegctl.sample(generator, [3, 4])
    assert (synthesis.image.shape, images.shape) == ((2, 3, 16, 16), (2, 16, 16, 3))
    assert str(synthesis.to_uint8().dtype) == "torch.uint8" and synthesis.to_uint8().equal(images)
    assert repr(synthesis).startswith("Synthesis(image [2, 3, 16, 16]")
    assert repr(synthesis.pyramid).startswith("FeaturePyramid([2, 80, 16, 16] float32")
