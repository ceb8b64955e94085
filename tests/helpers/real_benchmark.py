"""Miniatures of the files that the benchmark on real images reads."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np

from gansegctl.generators.inversion.search import InversionSettings
from gansegctl.pipeline.annotate.real_images import RealSettings
from gansegctl.pipeline.project.projector import ProjectSettings


def write(path, grey=False, side=16):
    """24 training and 6 test images: a bright square somewhere, its mask, six images a patient."""
    stream = np.random.RandomState(0)
    image = stream.randint(0, 40, (30, side, side, 1 if grey else 3)).astype(np.uint8)
    mask = np.zeros((30, side, side), np.uint8)
    for i in range(30):
        y, x = stream.randint(0, side // 2, 2)
        image[i, y : y + side // 2, x : x + side // 2] += 180
        mask[i, y : y + side // 2, x : x + side // 2] = 1
    with h5py.File(path, "w") as f:
        f["image"], f["mask"], f["split"] = image, mask, (np.arange(30) >= 24).astype(np.uint8)
        if grey:
            f["patient"] = (np.arange(30) // 6).astype(np.uint8)
        f.attrs["classes"] = json.dumps(["ground", "square"])
    return path


def tiny(real, path, work, **more):
    plan = real.Plan(
        path.stem,
        path,
        work,
        shots=(2,),
        methods=("linear", "segment_in_style"),
        options={"linear": {"steps": 2}, "segment_in_style": {"images": 2, "k": 2, "iterations": 2}},
        supervised=(2, 0),
        draws=1,
        samples=6,
        student_steps=2,
        network={"channel_base": 64, "channel_max": 8, "z_dim": 8, "w_dim": 8, "mapping_layers": 1},
        training={"images": 8, "batch_size": 4},
        project=ProjectSettings(
            inversion=InversionSettings(steps=2, start_steps=2, samples=4), calibration=0, batch_size=4
        ),
        limits=RealSettings(highest_error=255, ignore_above=0),
    )
    return replace(plan, **more)
