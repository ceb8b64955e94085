"""A program of its own process: the bytes that a one-shot fit and a prediction of a method hold at 256 px, as JSON.

In a process that has fitted other methods before, the holes which these left in the heap decide part of the number.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import torch

from gansegctl import methods
from gansegctl.bench.common import make_generator
from gansegctl.contracts import Exemplar
from gansegctl.labels import LabelMap
from gansegctl.methods.labels4free.collapse_guard import CollapseGuard
from gansegctl.pipeline.annotate.adversary import beyond_generator
from gansegctl.pipeline.runtime.memory import with_peak

LABELS = LabelMap(("a", "b", "c", "d"))


def measured(name: str, values: dict) -> dict[str, int | None]:
    """Peaks in bytes of `fit` and of `predict`, None where the system does not say them."""
    generator = make_generator("stylegan2-256")
    ws = generator.map(torch.randn(1, 512, generator=torch.Generator().manual_seed(0)))
    rows, columns = np.mgrid[:256, :256]
    exemplar = Exemplar(ws, 0, ((rows // 64 + columns // 64) % 4).astype(np.uint8))
    # What a process loads once, whatever it fits: an optimiser imports 150 MB of torch's own modules.
    weight = torch.zeros(3, requires_grad=True)
    optimizer = torch.optim.Adam([weight])
    weight.sum().backward()
    optimizer.step()
    generator.synthesize(ws)

    method = methods.get(name)
    settings = method.settings_type(**values)
    learns = "exemplars" in method.needs | method.takes
    given = beyond_generator(method, generator, settings)
    painted, labels = ([exemplar], LABELS) if learns else ([], None)
    segmenter, fit = with_peak(lambda: method.fit(generator, painted, labels, settings, 0, **given))

    def label():
        synthesis = generator.synthesize(exemplar.ws, taps=segmenter.taps)
        return segmenter.predict(generator, replace(synthesis, ws=exemplar.ws, noise="const", seeds=(exemplar.seed,)))

    return {"fit": fit, "predict": with_peak(label)[1]}


if __name__ == "__main__":
    torch.set_num_threads(1)
    CollapseGuard._kind = lambda self, areas: ""  # two steps decide nothing, which it would say
    print(json.dumps(measured(sys.argv[1], json.loads(sys.argv[2]))))
