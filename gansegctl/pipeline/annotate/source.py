"""A dataset that is annotated: its manifest, generator, label map and places of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from gansegctl.config import GenerateSettings, from_dict
from gansegctl.errors import DatasetError, UsageError
from gansegctl.generators.base import StyleGAN
from gansegctl.pipeline.inputs.generators import latents_of_seeds, open_generator
from gansegctl.pipeline.labelling import image_and_mask
from gansegctl.store.manifest import Manifest

SEGMENTER = "segmenter.safetensors"


EXEMPLARS = "exemplars"


REAL_SEEDS = 4_200_000_000
"""Exemplars of real images are numbered from here on: no sample that anybody generates has such a seed."""


@dataclass
class Source:
    """A dataset's generator and how its samples were made, so that they can be made again."""

    folder: Path
    manifest: Manifest
    settings: GenerateSettings
    generator: StyleGAN
    device: str = "cpu"

    @classmethod
    def open(cls, folder: Path, generator: str | None = None, device: str = "cpu") -> Source:
        """Read the manifest and load the generator it names (or `generator`, which must have the same sha256)."""
        manifest = Manifest.read(folder)
        settings = from_dict(GenerateSettings, manifest.settings["generate"], "manifest.settings.generate")
        try:
            loaded = open_generator(generator or settings.generator, device, settings.precision)
        except UsageError as e:
            if generator:
                raise
            remedy = "where the generator has moved, pass it as --generator FILE"
            raise UsageError(f"{e.got}; {folder} was made with it", wanted=e.wanted, remedy=remedy) from e
        if loaded.sha256 != manifest.generator["sha256"]:
            raise DatasetError(
                f"got a generator with sha256 {loaded.sha256[:12]}…",
                wanted=f"{manifest.generator['sha256'][:12]}…, which made {folder}",
                remedy="pass that file as --generator",
            )
        return cls(folder, manifest, settings, loaded, device)

    def latents(self, seeds: Sequence[int]) -> torch.Tensor:
        """ws [N,num_ws,w] of these seeds, as the dataset was made."""
        s = self.settings
        return latents_of_seeds(self.generator, seeds, s.truncation, s.truncation_cutoff, s.class_index, self.device)

    def images(self, seeds: Sequence[int]) -> np.ndarray:
        """uint8 [N,H,W,c], rendered again."""
        return image_and_mask(self.generator, self.latents(seeds), seeds, self.settings.noise, None)[0]
