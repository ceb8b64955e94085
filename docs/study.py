"""Whether the demo generator draws what it was shown: class shares of its samples and of renderings, a line of JSON.

The samples' masks are the labeller's, the renderings' exact. `make study` prints this before it compares methods.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import torch

from gansegctl import presets
from gansegctl.demo.scenes import LABELS, class_shares, render
from gansegctl.pipeline.distill import predict_masks
from gansegctl.pipeline.labelling import picture_and_mask
from gansegctl.pipeline.opening import grouped, latents_of_seeds, open_generator
from gansegctl.students.student import Student

FIRST_SAMPLE, FIRST_RENDERING = 5_000_000, 20_000_000


def shares(count: int) -> dict:
    """Shares of each class in `count` samples and renderings, and their total variation."""
    generator = open_generator("demo")
    labeller = Student.load(presets.resource(presets.load("demo")["labeller"]["weights"]))
    masks = []
    for seeds in grouped(range(FIRST_SAMPLE, FIRST_SAMPLE + count), 50):
        picture, _ = picture_and_mask(generator, latents_of_seeds(generator, seeds), seeds, "const", None)
        masks.append(predict_masks(labeller, picture))
    generated = class_shares(torch.from_numpy(np.concatenate(masks)))
    rendered = torch.zeros(len(LABELS), dtype=torch.float64)
    for seeds in grouped(range(FIRST_RENDERING, FIRST_RENDERING + count), 250):
        rendered += class_shares(render(seeds, generator.spec.resolution)[1]) * len(seeds) / count
    table = {n: [float(a), float(b)] for n, a, b in zip(LABELS.names, generated, rendered, strict=True)}
    return {"samples": count, "total_variation": float((generated - rendered).abs().sum() / 2), "shares": table}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-n", "--num", type=int, default=5000, help="samples, and renderings")
    print(json.dumps(shares(parser.parse_args().num)))
