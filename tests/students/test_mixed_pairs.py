"""Generated pairs with real annotated images among them."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch

from gansegctl.config import DistillSettings
from gansegctl.errors import UsageError
from gansegctl.io.image import save_png
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.pipeline.distill.pairs import Annotated
from gansegctl.pipeline.distill.stage import distill
from gansegctl.students.augment import AugmentSettings
from gansegctl.students.mixed_pairs import mixed_pairs, one_hot
from gansegctl.students.pairs import Pairs
from gansegctl.students.student import read_header
from gansegctl.students.training import StudentSettings, StudentTraining

LABELS = LabelMap(("ground", "square"))
STILL = AugmentSettings(rotation=0, shift=0, scale=1.0, mirror=0, light=0, blur=0, grain=0)


def squares(n: int, bright: int, side: int = 16, seed: int = 0) -> Pairs:
    """A square on a dark ground: of grey level `bright`, somewhere."""
    stream = np.random.RandomState(seed)
    image = stream.randint(0, 30, (n, side, side, 1)).astype(np.uint8)
    mask = np.zeros((n, side, side), np.uint8)
    for i, (y, x) in enumerate(stream.randint(0, side // 2, (n, 2))):
        image[i, y : y + side // 2, x : x + side // 2] += np.uint8(bright)
        mask[i, y : y + side // 2, x : x + side // 2] = 1
    return Pairs(torch.from_numpy(image), torch.from_numpy(mask))


def settings(**changes) -> StudentSettings:
    return StudentSettings(**{"widths": (8, 12), "steps": 40, "batch_size": 8, "augment": STILL} | changes)


def file_of(pairs: Pairs, path, classes='["ground", "square"]', **more):
    with h5py.File(path, "w") as f:
        f["image"], f["mask"] = pairs.image.numpy(), pairs.target.numpy()
        f.attrs["classes"] = classes
        for name, value in more.items():
            f[name] = value
    return path


def test_rows_of_both_come_in_the_order_asked_for():
    first, second = squares(5, 100), squares(3, 200, seed=1)
    pairs = mixed_pairs(first, second)
    image, target = pairs.image, pairs.target
    assert image.shape == (8, 16, 16, 1) and target.shape == (8, 16, 16) and len(pairs) == 8
    chosen = torch.tensor([7, 0, 5, 4, 7])
    assert torch.equal(image[chosen], torch.cat([first.image, second.image])[chosen])
    assert torch.equal(target[chosen], torch.cat([first.target, second.target])[chosen])
    for only in ([1, 2], [6, 6]):
        assert torch.equal(image[torch.tensor(only)], torch.cat([first.image, second.image])[torch.tensor(only)])


def test_masks_beside_probabilities_are_sure_and_ignored_pixels_weigh_nothing():
    first, second = squares(4, 100), squares(2, 200, seed=1)
    second.target[0, :2] = IGNORE
    target = mixed_pairs(Pairs(first.image, one_hot(first.target, 2).float()), second).target
    found = target[torch.tensor([4, 1])]
    assert found.shape == (2, 2, 16, 16) and found.dtype == torch.float32
    assert not found[0, :, :2].any() and torch.equal(found[0, :, 2:].argmax(0), second.target[0, 2:].long())
    assert target[torch.tensor([5, 5])].dtype == torch.float32  # also where a pass has real ones alone
    with pytest.raises(UsageError, match="probabilities"):
        mixed_pairs(first, Pairs(second.image, one_hot(second.target, 2)))


def test_other_sizes_and_channels_are_refused():
    with pytest.raises(UsageError, match=r"annotated images \[H, W, c\] \[8, 8, 1\]\s+wanted: \[16, 16, 1\]"):
        StudentTraining(squares(4, 100), LABELS, settings(), real=squares(2, 100, side=8))


def test_the_share_of_a_step_is_kept_and_none_is_held_back():
    training = StudentTraining(squares(20, 100), LABELS, settings(batch_size=400, real_share=0.25), real=squares(2, 9))
    chosen = training._chosen()
    assert (chosen >= 20).float().mean() == pytest.approx(0.25, abs=0.08)
    assert set(chosen[chosen >= 20].tolist()) == {20, 21}
    assert training.validation.max() < 20 and len(training.validation) == 1
    for share in (0.0, 1.0):
        with pytest.raises(UsageError, match="real-share"):
            settings(real_share=share)


def test_what_only_the_real_images_show_is_learned(tmp_path):
    """The generated pairs have no square at all; half of every step does."""
    empty = squares(16, 100)
    empty.image[:], empty.target[:] = empty.image % 30, 0
    fresh = squares(8, 200, seed=7)
    scores = []
    for real in (None, squares(4, 200, seed=3)):
        training = StudentTraining(empty, LABELS, settings(), real=real)
        *_, last = training.run()
        found = training.student.predict(fresh.image).labels
        scores.append((found[fresh.target == 1] == 1).float().mean().item())
    assert scores[0] == 0.0 and scores[1] > 0.9
    assert training.student.facts["pairs"] == 16 and training.student.facts["real_images"] == 4
    assert last.done == 40


def test_an_interrupted_run_goes_on_to_the_bit(tmp_path):
    pairs, real, s = squares(12, 100), squares(3, 200, seed=1), settings(steps=6)
    unbroken, first, second = (StudentTraining(pairs, LABELS, s, real=real) for _ in range(3))
    list(unbroken.run())
    for _ in range(3):
        first.train_step()
    first.save(tmp_path / "x.ckpt")
    second.resume(tmp_path / "x.ckpt")
    list(second.run())
    for a, b in zip(unbroken.student.model.parameters(), second.student.model.parameters(), strict=True):
        assert torch.equal(a, b)
    with pytest.raises(UsageError, match="real_images"):
        StudentTraining(pairs, LABELS, s, real=squares(2, 200)).resume(tmp_path / "x.ckpt")


def test_distill_takes_images_with_masks_beside_them_at_their_own_size(tmp_path):
    data, folder, out = file_of(squares(12, 100), tmp_path / "pairs.h5"), tmp_path / "real", tmp_path / "s.safetensors"
    folder.mkdir()
    big = squares(2, 200, side=24)
    for i in range(2):
        save_png(folder / f"{i}.png", big.image[i].numpy())
        save_png(folder / f"{i}.mask.png", big.target[i].numpy())
    s, real = DistillSettings(steps=3, batch_size=4), Annotated(folder)
    list(distill(data, out, s, real=real))
    facts = read_header(out)["facts"]
    assert (facts["pairs"], facts["real_images"], facts["real_from"]) == (12, 2, "real")
    assert [e.facts for e in distill(data, out, s, real=real)] == [{"skipped": "finished already"}]
    with pytest.raises(UsageError, match=r"real_share: 0\.5 there, 0\.3 asked for"):
        list(distill(data, out, s, real=Annotated(folder, share=0.3)))
    save_png(folder / "1.mask.png", big.target[0].numpy())  # painted anew: of the same size, perhaps
    with pytest.raises(UsageError, match="real: "):
        list(distill(data, out, s, real=real))
    with pytest.raises(UsageError, match=r"real: .* there, nothing asked for"):
        list(distill(data, out, s))


def test_distill_refuses_real_images_that_it_cannot_use(tmp_path):
    data, s = file_of(squares(12, 100), tmp_path / "pairs.h5"), DistillSettings(steps=3, batch_size=4)
    more = {"split": np.arange(12) % 2}
    cases = {
        "no such file": Annotated(tmp_path / "nowhere"),
        "wanted: ground, square": Annotated(file_of(squares(2, 9), tmp_path / "other.h5", '["sky", "sea"]')),
        "none chosen": Annotated(file_of(squares(12, 9), tmp_path / "split.h5", **more)),
        "channels": Annotated(file_of(_coloured(squares(2, 9)), tmp_path / "colour.h5")),
    }
    for match, real in cases.items():
        with pytest.raises(UsageError, match=match):
            list(distill(data, tmp_path / "s.safetensors", s, real=real))
    list(distill(data, tmp_path / "s.safetensors", s, real=Annotated(tmp_path / "split.h5", split=1)))
    assert read_header(tmp_path / "s.safetensors")["facts"]["real_images"] == 6


def _coloured(pairs: Pairs) -> Pairs:
    return Pairs(pairs.image.repeat(1, 1, 1, 3), pairs.target)
