"""Checkpoints that are understood well enough to be refused by name, and the error for those that are not."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

from gansegctl.errors import UsageError
from gansegctl.generators.checkpoints.records import ModuleRecord
from gansegctl.generators.checkpoints.unpickle.inert import Inert
from gansegctl.generators.checkpoints.unpickle.limits import shown

READ = (
    "NVlabs StyleGAN2, StyleGAN3 or StyleGAN-XL, rosinality, genforce, mmgeneration, TensorFlow StyleGAN2, safetensors"
)
"""The families that `open_checkpoint` reads, for messages."""

CLASSES = {
    "TriPlaneGenerator": "EG3D, a 3-D generator",
    "VolumeGenerator": "a 3-D generator",
    "NeRFGenerator": "a 3-D generator",
    "StyleNeRF": "StyleNeRF, a 3-D generator",
    "Discriminator": "a discriminator",
    "ProjectedDiscriminator": "a discriminator",
}
"""Class name of a stored module → what it is."""

CHILDREN = (
    ({"backbone", "decoder"}, "EG3D, a 3-D generator"),
    ({"nerf"}, "a 3-D generator"),
)
"""Names of children → what has them."""

TENSORS = (
    (r"(g_running\.|generator\.)?(module\.)?generator\.progression\.\d+\.|style\.1\.linear", "StyleGAN1 in PyTorch"),
    (r"(module\.)?g_synthesis\.|g_mapping\.", "StyleGAN1 in PyTorch"),
    (r"progression(_\d+)?\.\d+\.|scaleLayers\.|toRGBLayers\.", "ProGAN"),
    (r"model\.diffusion_model\.|unet\.|down_blocks\.\d+\.|input_blocks\.\d+\.|denoise_fn\.", "a diffusion model"),
    (r"backbone\.synthesis\.", "EG3D, a 3-D generator"),
    (r"renderer\.|pts_linears\.|siren\.", "a 3-D generator"),
    (
        r"(D\.|discriminator\.|module\.)?(final_linear\.0\.weight|b\d+\.fromrgb\.|b4\.mbstd|final_conv\.0\.weight)",
        "a discriminator",
    ),
    (r"encoder\.|psp_encoder\.", "an encoder for GAN inversion"),
    (r"(backbone\.)?layer[1-4]\.\d+\.conv\d\.weight|classifier\.|fc\.weight$", "a classifier or segmenter"),
)
"""Tensor names → what has them; the first that fits decides."""


def refuse_record(record: ModuleRecord) -> None:
    """UsageError for a stored module that is known to be no StyleGAN2, StyleGAN3 or StyleGAN-XL generator."""
    what = CLASSES.get(record.class_name)
    for names, family in CHILDREN:
        if what is None and names <= set(record.children):
            what = family
    if what is not None:
        raise UsageError(f"got a checkpoint of {what} (class {record.class_name})", wanted=READ)


def refuse(value: Any) -> NoReturn:
    """Always a UsageError: what the content looks like, or what lies at its top."""
    names = list(_names(value))
    for pattern, family in TENSORS:
        if any(re.match(pattern, n) for n in names):
            raise UsageError(f"got a checkpoint of {family}", wanted=READ, remedy="pass the generator's own file")
    top = type(value).__name__
    if isinstance(value, Mapping):
        top = ", ".join(sorted(shown(key).strip("'") for key in list(value)[:8]))
    elif isinstance(value, Inert):
        top = f"an object of the class {value.name}"
    raise UsageError(
        f"got a checkpoint of an unknown family; at its top: {top or 'nothing'}",
        wanted=READ,
        remedy="convert it with its own project to one of these",
    )


def _names(value: Any, depth: int = 0) -> Iterable[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if isinstance(key, str):
                yield key
            if depth < 2:
                yield from _names(inner, depth + 1)
