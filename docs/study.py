"""One, five and ten shots of `repurpose` on the demo generator, over exemplars and seeds; writes docs/study.json.

Truth: the demo's labeller, on fresh samples. Masks of the exemplars are the labeller's too, so that many can be tried:
a person's mask differs from it by about the labeller's own error. Every row is kept as soon as it is measured, and a
row that is there is not measured again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from gansegctl import methods, presets
from gansegctl.contracts import Exemplar
from gansegctl.demo.scenes import LABELS, class_shares, render
from gansegctl.evaluate.report import score
from gansegctl.methods.repurpose import RepurposeSettings
from gansegctl.pipeline.labelling import picture_and_mask
from gansegctl.pipeline.opening import grouped, latents_of_seeds, open_generator
from gansegctl.students.student import Student

OUT = Path(__file__).with_name("study.json")
FIRST_EXEMPLAR, FIRST_SAMPLE = 2_000_000, 3_000_000


def labelled(generator, labeller, seeds):
    """Pictures and the labeller's masks of these seeds."""
    pictures, masks = [], []
    for batch in grouped(seeds, 50):
        image, _ = picture_and_mask(generator, latents_of_seeds(generator, batch), batch, "const", None)
        pictures.append(image)
        masks.append(labeller.predict(torch.from_numpy(image)).labels.numpy())
    return np.concatenate(pictures), np.concatenate(masks)


def one_run(generator, truth, samples, head, shots, draw, seed):
    """Fit on `shots` exemplars of this draw, score on the samples → a row."""
    first = FIRST_EXEMPLAR + 100 * draw
    seeds = list(range(first, first + shots))
    _, masks = truth["labelled"](seeds)
    exemplars = [Exemplar(latents_of_seeds(generator, [s]), s, m) for s, m in zip(seeds, masks, strict=True)]
    began = time.perf_counter()
    segmenter = methods.get("repurpose").fit(generator, exemplars, LABELS, RepurposeSettings(head=head), seed)
    seconds = time.perf_counter() - began

    def rows():
        for i, batch in enumerate(grouped(samples, 50)):
            ws = latents_of_seeds(generator, batch)
            image, annotation = picture_and_mask(generator, ws, batch, "const", segmenter)
            yield annotation.labels.numpy(), truth["masks"][50 * i : 50 * i + len(batch)], image

    report = score(rows(), LABELS, bootstrap=0)
    keep = ("miou", "wiou_tritrong", "wiou_manerikar", "pixel_accuracy", "trimap_miou")
    scores = {k: float(report.scores[k]) for k in keep}
    return {"head": head, "shots": shots, "draw": draw, "seed": seed, "fit_seconds": round(seconds, 1)} | scores


def shares_of_samples(generator, labeller, count):
    """Total variation between class shares of generated samples (by the labeller) and of renderings (exact)."""
    _, masks = labelled(generator, labeller, range(5_000_000, 5_000_000 + count))
    shares = torch.zeros(len(LABELS), dtype=torch.float64)
    for batch in grouped(range(20_000_000, 20_000_000 + count), 250):
        shares += class_shares(render(batch, 64)[1]) * len(batch) / count
    generated = class_shares(torch.from_numpy(masks))
    table = {n: [float(a), float(b)] for n, a, b in zip(LABELS.names, generated, shares, strict=True)}
    return {"samples": count, "total_variation": float((generated - shares).abs().sum() / 2), "shares": table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--head", default="cnn-s")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 5, 10])
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--samples", type=int, default=300)
    parser.add_argument("--share-samples", type=int, default=5000)
    a = parser.parse_args()
    generator = open_generator("demo")
    labeller = Student.load(presets.resource(presets.load("demo")["labeller"]["weights"]))
    samples = list(range(FIRST_SAMPLE, FIRST_SAMPLE + a.samples))
    truth = {
        "labelled": lambda seeds: labelled(generator, labeller, seeds),
        "masks": labelled(generator, labeller, samples)[1],
    }
    data = json.loads(OUT.read_text()) if OUT.exists() else {}
    if data.get("generator") != generator.sha256:
        data = {"generator": generator.sha256, "rows": []}
    if a.share_samples and data.get("shares", {}).get("samples") != a.share_samples:
        data["shares"] = shares_of_samples(generator, labeller, a.share_samples)
        print(
            f"class shares, {a.share_samples} samples: total variation {data['shares']['total_variation']:.4f}",
            flush=True,
        )
    done = {(r["head"], r["shots"], r["draw"], r["seed"]) for r in data["rows"]}
    for shots in a.shots:
        for draw in range(a.draws):
            for seed in range(a.seeds):
                if (a.head, shots, draw, seed) not in done:
                    data["rows"].append(one_run(generator, truth, samples, a.head, shots, draw, seed))
                    OUT.write_text(json.dumps(data, indent=1) + "\n")
                    print(data["rows"][-1], flush=True)
    print("\n| head | shots | fits | wIoU (Tritrong) | mIoU | wIoU (Manerikar) | trimap mIoU | fit, s |")
    print("|---|---|---|---|---|---|---|---|")
    for head, shots in sorted({(r["head"], r["shots"]) for r in data["rows"]}):
        rows = [r for r in data["rows"] if (r["head"], r["shots"]) == (head, shots)]
        cells = []
        for k in ("wiou_tritrong", "miou", "wiou_manerikar", "trimap_miou"):
            values = [r[k] for r in rows]
            spread = statistics.stdev(values) if len(values) > 1 else float("nan")
            cells.append(f"{statistics.mean(values):.3f} ± {spread:.3f}")
        seconds = statistics.mean(r["fit_seconds"] for r in rows)
        print(f"| {head} | {shots} | {len(rows)} | {' | '.join(cells)} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
