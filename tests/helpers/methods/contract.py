"""The promises of every method, as tests. Inherit, and set `name` and `settings` (small, quick to fit)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from helpers.methods.tiny_generator import SIDE, TinyGenerator, exemplars_of

from gansegctl import kernels, methods
from gansegctl.contracts import Segmenter
from gansegctl.errors import UsageError
from gansegctl.features.pyramid import FeaturePyramid
from gansegctl.io.digest import file_digest
from gansegctl.kernels import reference
from gansegctl.labels import LabelMap

LABELS = LabelMap(("background", "left", "right"))
SEEDS = (3, 5)


class MethodContract:
    """name: of the method; settings: an instance of its settings_type; invented: pixels of a class never shown."""

    name: str
    settings: object
    invented = 0.02

    @pytest.fixture(autouse=True)
    def _material(self):
        self.generator = TinyGenerator()
        self.exemplars = exemplars_of(self.generator, SEEDS)
        self.samples = self.generator.latents(range(100, 104))

    def fit(self, exemplars=None, labels=LABELS, seed=0, generator=None):
        chosen = self.exemplars if exemplars is None else exemplars
        return methods.get(self.name).fit(generator or self.generator, chosen, labels, self.settings, seed)

    def predict(self, segmenter, ws=None, **options):
        ws = self.samples if ws is None else ws
        return segmenter.predict(self.generator, self.generator.synthesize(ws, taps=segmenter.taps), **options)

    def test_is_listed_by_its_own_name(self):
        method = methods.get(self.name)
        assert method.name == self.name and isinstance(self.settings, method.settings_type)
        assert method.needs <= {"exemplars", "discriminator"} and method.takes <= {"exemplars"}

    def test_annotation_has_the_shapes_types_and_ranges_of_the_contract(self):
        segmenter = self.fit()
        assert isinstance(segmenter, Segmenter) and segmenter.labels == LABELS and segmenter.method == self.name
        a = self.predict(segmenter, probabilities=True)
        assert a.labels.dtype == a.confidence.dtype == torch.uint8 and a.score.dtype == torch.float32
        assert a.labels.shape == a.confidence.shape == (4, SIDE, SIDE) and a.score.shape == (4,)
        assert a.probabilities.dtype == torch.float16 and a.probabilities.shape == (4, 3, SIDE, SIDE)
        assert int(a.labels.max()) < 3 and 0 <= float(a.score.min()) <= float(a.score.max()) <= 1
        torch.testing.assert_close(a.probabilities.float().sum(1), torch.ones(4, SIDE, SIDE), atol=2e-3, rtol=0)
        top = a.probabilities.float().amax(1)
        assert float((top * 255 - a.confidence.float()).abs().max()) < 0.8
        won = a.probabilities.gather(1, a.labels.long()[:, None])[:, 0].float()
        assert bool((won >= top - 1e-3).all())
        plain = self.predict(segmenter)
        assert plain.probabilities is None
        assert (plain.labels == a.labels).float().mean() > 0.999  # but for ties: the same masks, kept or not
        torch.testing.assert_close(plain.score, a.score, atol=1e-4, rtol=1e-3)

    def test_saved_and_loaded_it_says_the_same(self, tmp_path):
        segmenter = self.fit()
        segmenter.save(tmp_path / "s.safetensors")
        loaded = methods.load(tmp_path / "s.safetensors")
        assert type(loaded) is type(segmenter)
        for field in ("method", "labels", "taps", "widths", "generator_sha256", "settings", "facts"):
            wanted = getattr(segmenter, field)
            assert methods_json(getattr(loaded, field)) == methods_json(wanted), field
        before, after = self.predict(segmenter, probabilities=True), self.predict(loaded, probabilities=True)
        for field in ("labels", "confidence", "score", "probabilities"):
            assert torch.equal(getattr(before, field), getattr(after, field)), field
        loaded.save(tmp_path / "again.safetensors")
        assert file_digest(tmp_path / "s.safetensors") == file_digest(tmp_path / "again.safetensors")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["again.safetensors", "s.safetensors"]

    def test_one_seed_one_result_and_another_seed_another(self):
        first, again, other = (self.predict(self.fit(seed=s), probabilities=True) for s in (7, 7, 8))
        assert torch.equal(first.probabilities, again.probabilities)
        assert not torch.equal(first.probabilities, other.probabilities)

    def test_the_random_state_of_the_process_is_neither_used_nor_moved(self):
        torch.manual_seed(1)
        np.random.seed(1)
        torch_before, numpy_before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
        first = self.predict(self.fit(), probabilities=True)
        assert torch.equal(torch.random.get_rng_state(), torch_before)
        assert np.array_equal(np.random.get_state()[1], numpy_before)
        torch.manual_seed(2)
        assert torch.equal(self.predict(self.fit(), probabilities=True).probabilities, first.probabilities)

    def test_a_sample_is_labelled_the_same_in_any_batch(self):
        segmenter = self.fit()
        together = self.predict(segmenter, probabilities=True)
        alone = [self.predict(segmenter, self.samples[i : i + 1], probabilities=True) for i in range(4)]
        apart = torch.cat([a.probabilities for a in alone])
        torch.testing.assert_close(apart.float(), together.probabilities.float(), atol=2e-3, rtol=0)
        torch.testing.assert_close(torch.cat([a.score for a in alone]), together.score, atol=1e-5, rtol=1e-4)

    def test_a_class_that_no_exemplar_shows_is_no_error_and_is_not_invented(self):
        a = self.predict(self.fit(labels=LabelMap((*LABELS.names, "absent"))), probabilities=True)
        assert a.probabilities.shape[1] == 4
        assert float((a.labels == 3).float().mean()) < self.invented

    def test_ignored_pixels_do_not_teach(self):
        kept = self.exemplars[0].mask.copy()
        kept[: SIDE // 2] = 255
        ignored = [replace(self.exemplars[0], mask=kept)]
        wrong = self.exemplars[0].mask.copy()
        wrong[: SIDE // 2] = (wrong[: SIDE // 2] + 1) % 3
        base, taught = self.fit(ignored), self.fit([replace(self.exemplars[0], mask=wrong)])
        hidden = self.predict(base, self.exemplars[0].ws).labels.numpy()[0]
        shown = self.predict(taught, self.exemplars[0].ws).labels.numpy()[0]
        top = np.s_[: SIDE // 2]
        assert int(hidden.max()) < 3
        assert (hidden[top] == wrong[top]).mean() < (shown[top] == wrong[top]).mean()

    def test_a_image_that_is_ignored_whole_changes_nothing_but_is_no_error(self):
        blank = replace(self.exemplars[1], mask=np.full((SIDE, SIDE), 255, np.uint8))
        a = self.predict(self.fit([self.exemplars[0], blank]), probabilities=True)
        assert bool(a.probabilities.isfinite().all())
        with pytest.raises(UsageError, match="ignored"):
            self.fit([blank])

    def says_one_thing_or_refuses(self, value, labels):
        """Exemplars of one value all over: that is most of the answer, or the method says that it cannot.

        Most, for a short fit of a linear layer does not reach every pixel of another image.
        """
        painted = [replace(e, mask=np.full((SIDE, SIDE), value, np.uint8)) for e in self.exemplars]
        try:
            segmenter = self.fit(painted, labels)
        except UsageError:
            return
        a = self.predict(segmenter, probabilities=True)
        assert a.probabilities.shape == (4, len(labels), SIDE, SIDE) and bool(a.probabilities.isfinite().all())
        counts = torch.bincount(a.labels.flatten().long(), minlength=len(labels))
        assert int(counts.argmax()) == value and int(counts.sum()) == a.labels.numel()
        assert 0 <= float(a.score.min()) <= float(a.score.max()) <= 1

    @pytest.mark.parametrize("value", [0, 2])
    def test_masks_of_one_value_teach_that_class_or_are_refused(self, value):
        self.says_one_thing_or_refuses(value, LABELS)

    def test_one_class_alone_is_everywhere_or_is_refused(self):
        self.says_one_thing_or_refuses(0, LabelMap(("only",)))

    @pytest.mark.parametrize("shape", [(SIDE, SIDE + 1), (8, 8), (SIDE, SIDE, 1)])
    def test_masks_of_another_size_are_refused(self, shape):
        with pytest.raises(UsageError, match="size of the generator"):
            self.fit([replace(self.exemplars[0], mask=np.zeros(shape, np.uint8))])

    def test_values_without_a_class_and_no_exemplars_are_refused(self):
        wrong = self.exemplars[0].mask.copy()
        wrong[2, 3] = 17
        with pytest.raises(UsageError, match=r"17.*seed 3"):
            self.fit([replace(self.exemplars[0], mask=wrong)])
        with pytest.raises(UsageError, match="no exemplars"):
            self.fit([])

    def test_activations_of_another_generator_are_refused(self):
        segmenter = self.fit()
        wider = TinyGenerator(channels=(8, 7, 5))
        wider.sha256 = self.generator.sha256
        with pytest.raises(UsageError, match="channels"):
            segmenter.predict(wider, wider.synthesize(self.samples, taps=segmenter.taps))
        other = TinyGenerator(seed=1)
        with pytest.raises(UsageError, match="fit again"):
            segmenter.predict(other, other.synthesize(self.samples, taps=segmenter.taps))

    def test_exemplars_are_made_again_with_their_own_noise(self):
        seen = []

        class Watched(TinyGenerator):
            def synthesize(self, ws, noise="const", taps=None, seeds=None):
                seen.append((noise, tuple(seeds or ())))
                return super().synthesize(ws, noise, taps, seeds)

        self.fit(exemplars_of(self.generator, SEEDS, noise="seed"), generator=Watched())
        made = [s for s in seen if s in [("seed", (x,)) for x in SEEDS]]  # perhaps more than once, to hold less
        assert set(made) == {("seed", (s,)) for s in SEEDS}

    def test_the_hypercolumn_is_never_built(self, monkeypatch):
        def refuse(*args, **options):
            raise AssertionError("the hypercolumn was built")

        monkeypatch.setattr(FeaturePyramid, "dense", refuse)
        for module in (kernels, reference):
            monkeypatch.setattr(module, "upsample_concat", refuse)
        assert self.predict(self.fit()).labels.shape == (4, SIDE, SIDE)


def methods_json(value):
    """Tuples and lists alike, as JSON leaves them."""
    if isinstance(value, dict):
        return {k: methods_json(v) for k, v in value.items()}
    return [methods_json(v) for v in value] if isinstance(value, (tuple, list)) else value
