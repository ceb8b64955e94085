"""The guard: collapse is named after some patience, settled masks end a fit, and neither happens without cause."""

from __future__ import annotations

import pytest
import torch

from gansegctl.errors import GansegError
from gansegctl.methods.labels4free.collapse_guard import CollapseGuard, area_histogram


def masks(*areas, soft=0.0):
    """One image of 100 pixels per area, hard (or with all values `soft` away from 0 and 1)."""
    images = torch.zeros(len(areas), 1, 10, 10)
    for image, area in zip(images, areas, strict=True):
        image.view(-1)[: round(100 * area)] = 1
    return images * (1 - 2 * soft) + soft


def test_histogram_counts_tenths():
    assert area_histogram([0.0, 0.05, 0.15, 0.999, 1.0]) == [0.4, 0.2, 0, 0, 0, 0, 0, 0, 0, 0.4]


@pytest.mark.parametrize(("area", "kind", "remedy"), [(1.0, "foreground", "bg_share"), (0.0, "background", "mult")])
def test_collapse_is_named_after_three_looks_in_a_row(area, kind, remedy):
    guard = CollapseGuard()
    assert not guard.look(masks(0.4, 0.5), 10)
    for i in (20, 30):
        assert not guard.look(masks(area, area), i)
    with pytest.raises(GansegError, match=rf"all-{kind} masks at iteration 40") as e:
        guard.look(masks(area, area), 40)
    assert remedy in e.value.remedy and "iterations = 10" in e.value.remedy and f"{area:.3f}" in e.value.got


def test_without_a_healthy_look_no_iteration_is_recommended():
    guard = CollapseGuard(patience=1)
    with pytest.raises(GansegError) as e:
        guard.look(masks(1.0), 5)
    assert "iterations =" not in e.value.remedy and guard.healthy() is None


def test_a_collapsed_look_whose_mean_area_is_plausible_is_not_recommended():
    """19 of 20 images are all foreground, and the mean area is 0.95 for the sake of one."""
    guard = CollapseGuard()
    guard.look(masks(0.4, 0.5), 10)
    for i in (20, 30):
        guard.look(masks(*[0.98] * 19, 0.2), i)
    with pytest.raises(GansegError) as e:
        guard.look(masks(*[0.98] * 19, 0.2), 40)
    assert "iterations = 10" in e.value.remedy and "0.941" in e.value.got
    assert [s.kind for s in guard.looks] == ["", *["foreground"] * 3]


def test_alpha_that_nowhere_reaches_the_threshold_is_a_collapse_of_what_is_written():
    """0.88 on two fifths of an image: a plausible area, and nothing above 0.9."""
    alpha = masks(0.4, 0.4) * 0.88
    guard = CollapseGuard(threshold=0.9)
    guard.look(masks(0.4, 0.4), 10)
    assert not any([guard.look(alpha, i) for i in range(20, 80, 10)])  # nor settled, though it is decided and calm
    assert guard.looks[-1].undecided < guard.decided and guard.looks[-1].area == pytest.approx(0.352)
    with pytest.raises(GansegError, match="all-background masks at iteration 80") as e:
        guard.look(alpha, 80, last=True)
    assert "above 0.9 0.000" in e.value.got and "threshold" in e.value.remedy and "iterations = 10" in e.value.remedy
    half = CollapseGuard(threshold=0.5)
    half.look(alpha, 80, last=True)
    assert half.looks[-1].written == pytest.approx(0.4)


def test_a_threshold_that_everything_exceeds_is_a_collapse_too():
    with pytest.raises(GansegError, match="all-foreground") as e:
        CollapseGuard(threshold=0.2).look(masks(0.4, 0.4, soft=0.3), 5, last=True)
    assert "raise threshold" in e.value.remedy


def test_looks_that_recover_or_change_sides_are_no_collapse():
    guard = CollapseGuard(patience=2)
    for i, area in enumerate([1.0, 0.5, 1.0, 0.0, 1.0, 0.0, 0.3, 1.0]):
        guard.look(masks(area, area), i)
    with pytest.raises(GansegError, match="all-foreground"):
        guard.look(masks(1.0, 1.0), 9)


def test_a_few_full_images_among_others_are_no_collapse():
    guard = CollapseGuard(patience=1)
    guard.look(masks(1.0, 1.0, 1.0, 0.5), 1)
    assert guard.looks[0].area == pytest.approx(0.875) and guard.looks[0].histogram[-1] == 0.75


def test_masks_settle_when_they_are_hard_and_stay_as_they_are():
    guard = CollapseGuard()
    assert [guard.look(masks(0.3, 0.5), i) for i in range(5)] == [False, False, False, True, True]
    assert not guard.look(masks(0.3, 0.6), 6)  # moved by 0.05: begins anew
    assert [guard.look(masks(0.3, 0.6), i) for i in range(7, 10)] == [False, False, True]


def test_undecided_masks_never_settle():
    guard = CollapseGuard()
    assert not any(guard.look(masks(0.3, 0.5, soft=0.2), i) for i in range(8))
    assert guard.looks[-1].undecided == pytest.approx(0.4)


@pytest.mark.parametrize(("area", "kind"), [(1.0, "foreground"), (0.0, "background")])
def test_a_collapsed_last_look_needs_no_patience(area, kind):
    guard = CollapseGuard()
    assert not guard.look(masks(0.4, 0.5), 25)
    with pytest.raises(GansegError, match=f"all-{kind} masks at iteration 50") as e:
        guard.look(masks(area, area), 50, last=True)
    assert "iterations = 25" in e.value.remedy
    assert not CollapseGuard().look(masks(0.4, area), 50, last=True)


def test_images_may_come_one_by_one():
    together, apart = CollapseGuard(), CollapseGuard()
    together.look(masks(0.2, 0.7, soft=0.1), 1)
    apart.look((a[None] for a in masks(0.2, 0.7, soft=0.1)), 1)
    assert together.looks == apart.looks and together.looks[0].undecided == pytest.approx(0.2)
