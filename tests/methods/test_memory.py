"""A one-shot fit and a prediction at the shapes of a 256 px StyleGAN2 take less than 1 GB beyond the weights.

The hypercolumn of one such image alone would be 1.41 GB. A few steps hold what many do. labels4free trains a
discriminator of that size beside, with its own gradients and moments, and has a bound of its own.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from gansegctl import methods
from gansegctl.bench.common import make_generator
from gansegctl.contracts import Exemplar
from gansegctl.labels import LabelMap
from gansegctl.methods.labels4free.collapse_guard import CollapseGuard
from gansegctl.pipeline.annotate.adversary import beyond_generator
from gansegctl.pipeline.runtime.memory import peak_extra

LABELS = LabelMap(("a", "b", "c", "d"))
FEW = {"steps": 2, "statistics_samples": 2}
CASES = {
    "oneshot": FEW,
    "contrastive": FEW | {"pretrain_steps": 2, "draws": 1, "sinkhorn_rounds": 1},
    "repurpose": FEW,
    "linear": FEW,
    "datasetgan": FEW,
    "segment_in_style": {"images": 40, "iterations": 2, "statistics_samples": 2},
    "labels4free": {"iterations": 2, "guard_every": 2, "guard_samples": 2, "statistics_samples": 2},
    "stylemix": {"repeats": 2, "iterations": 2},
}
"""Method → settings that shorten its fit, and change the size of nothing that it holds at its worst.

segment_in_style holds maps of all its images, so it has as many as by default. labels4free's first step is one with
the R1 penalty, of derivatives of the second order. stylemix fits nothing; a prediction makes 11 variants, 4 at a time.
"""
LIMITS = {"labels4free": 4e9}
"""Bytes, where it is not 1 GB."""


@pytest.fixture(scope="module")
def material():
    generator = make_generator("stylegan2-256")
    ws = generator.map(torch.randn(1, 512, generator=torch.Generator().manual_seed(0)))
    rows, columns = np.mgrid[:256, :256]
    mask = ((rows // 64 + columns // 64) % 4).astype(np.uint8)
    # What a process loads once, whatever it fits: an optimiser imports 150 MB of torch's own modules.
    weight = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    generator.synthesize(ws)
    return generator, Exemplar(ws, 0, mask)


def test_every_method_is_measured():
    assert set(CASES) == set(methods.METHODS)
    for name, change in CASES.items():
        methods.get(name).settings_type(**change)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "change"),
    [*((name, {}) for name in CASES), ("repurpose", {"head": "mlp"})],
    ids=lambda x: x if isinstance(x, str) else "-".join(x.values()),
)
def test_a_one_shot_fit_and_a_prediction_stay_below_a_gigabyte(material, name, change, record_property, monkeypatch):
    generator, exemplar = material
    method, made = methods.get(name), []
    settings = method.settings_type(**CASES[name] | change)
    monkeypatch.setattr(CollapseGuard, "_kind", lambda self, areas: "")  # two steps decide nothing, which it would say
    learns = "exemplars" in method.needs | method.takes
    what = ([exemplar], LABELS) if learns else ([], None)
    given = beyond_generator(method, generator, settings)
    fit = peak_extra(lambda: made.append(method.fit(generator, *what, settings, 0, **given)))
    if fit is None:
        pytest.skip("needs /proc")
    segmenter = made[0]

    def label():
        synthesis = generator.synthesize(exemplar.ws, taps=segmenter.taps)
        return segmenter.predict(generator, replace(synthesis, ws=exemplar.ws, noise="const", seeds=(exemplar.seed,)))

    predict = peak_extra(label)
    record_property("megabytes", {"fit": fit // 10**6, "predict": predict // 10**6})
    print(f"{name} {change}: fit {fit / 1e6:.0f} MB, predict {predict / 1e6:.0f} MB")
    assert 0 <= fit < LIMITS.get(name, 1e9) and 0 < predict < 1e9
