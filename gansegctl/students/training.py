"""Training a student on picture/mask pairs (auto-shot, Tritrong et al. 2021 section 3.4), resumable to the bit."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gansegctl.contracts import Progress
from gansegctl.errors import GansegError, UsageError
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.resuming import load_state, save_state
from gansegctl.students.augment import AugmentSettings, augment
from gansegctl.students.student import Student, build

KIND = "gansegctl.distilling"
MOST_HELD = 2000
"""Pairs held back for validation at most: enough for the third decimal, and they are in memory together."""


@dataclass(frozen=True)
class StudentSettings:
    """How a student is trained. `steps` 0 means `epochs` passes over the pairs."""

    arch: str = "unet"
    widths: tuple[int, ...] = (16, 32, 64, 96)
    epochs: int = 10
    steps: int = 0
    batch_size: int = 32
    lr: float = 4e-3
    weight_decay: float = 1e-4
    clip: float = 1.0
    weigh_by_confidence: bool = False  # starves classes the teacher is unsure of: nose IoU 0.000, else 0.343
    validation: float = 0.05
    precision: str = "fp32"
    seed: int = 0
    augment: AugmentSettings = field(default_factory=AugmentSettings)

    def __post_init__(self) -> None:
        object.__setattr__(self, "widths", tuple(self.widths))
        if self.batch_size < 1 or (self.epochs < 1 and self.steps < 1):
            raise UsageError(f"got batch size {self.batch_size}, {self.epochs} epochs", wanted="at least 1 of each")
        if self.precision not in ("fp32", "bf16"):
            raise UsageError(f"got precision {self.precision!r}", wanted="fp32 | bf16")
        if not 0 <= self.validation < 1:
            raise UsageError(f"got validation share {self.validation}", wanted="0 to below 1")


@dataclass
class Pairs:
    """Pairs: image uint8 [N,H,W,c], target uint8 [N,H,W] (hard) or float16 [N,K,H,W] (soft), and confidence uint8
    [N,H,W] where there is one. Tensors, or anything that gives tensors when indexed with int64 [n] and has their shape.
    """

    image: Tensor
    target: Tensor
    confidence: Tensor | None = None

    def __post_init__(self) -> None:
        if not len(self.image):
            raise UsageError("got no pairs to train on", wanted="at least one picture with its mask")
        if len(self.image) != len(self.target) or self.image.shape[1:3] != self.target.shape[-2:]:
            raise UsageError(f"got pictures {list(self.image.shape)}, masks {list(self.target.shape)}", wanted="pairs")

    def __len__(self) -> int:
        return len(self.image)


class StudentTraining:
    """One training run: `run()` yields progress once an epoch, then `.student` is the result (the last weights)."""

    def __init__(self, pairs: Pairs, labels: LabelMap, settings: StudentSettings, device: str = "cpu") -> None:
        if isinstance(pairs.target, Tensor) and pairs.target.ndim == 3:
            _check_values(pairs.target, len(labels))
        elif len(pairs.target.shape) == 4 and pairs.target.shape[1] != len(labels):
            raise UsageError(f"got {pairs.target.shape[1]} soft classes", wanted=f"{len(labels)}")
        self.pairs, self.labels, self.settings, self.device = pairs, labels, settings, torch.device(device)
        self.stream = torch.Generator().manual_seed(settings.seed)
        order = torch.randperm(len(pairs), generator=self.stream)
        held = min(int(len(pairs) * settings.validation), MOST_HELD)
        self.validation, self.training = order[:held], order[held:]
        channels = pairs.image.shape[3]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = build(settings.arch, channels, len(labels), settings.widths).to(self.device)
        size = (pairs.image.shape[1], pairs.image.shape[2])
        self.student = Student(model, labels, size, channels, settings.arch, settings.widths)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        self.step = 0

    @property
    def steps_an_epoch(self) -> int:
        return max(1, len(self.training) // self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        return self.settings.steps or self.settings.epochs * self.steps_an_epoch

    def run(self, checkpoint: Path | None = None) -> Iterator[Progress]:
        """Train to the end; resumes from `checkpoint` when it exists and renews it once an epoch."""
        if checkpoint is not None and checkpoint.exists():
            self.resume(checkpoint)
        losses: list[float] = []
        while self.step < self.total_steps:
            losses.append(self.train_step())
            if self.step % self.steps_an_epoch == 0 or self.step == self.total_steps:
                facts: dict[str, Any] = {"loss": sum(losses) / len(losses)}
                if not math.isfinite(facts["loss"]):
                    raise GansegError(f"got loss {facts['loss']} at step {self.step}", remedy="lower the learning rate")
                if len(self.validation):
                    facts["validation_miou"] = self.validate()
                losses = []
                self.student.facts = {"steps": self.step, "pairs": len(self.pairs), **facts}
                if checkpoint is not None:
                    self.save(checkpoint)
                yield Progress("distill", self.step, self.total_steps, "steps", facts)
        self.student.model.eval()

    def train_step(self) -> float:
        """One batch → its loss."""
        s, model = self.settings, self.student.model.train()
        self.optimizer.param_groups[0]["lr"] = s.lr * self._schedule()
        chosen = self.training[torch.randint(len(self.training), (s.batch_size,), generator=self.stream)]
        x = self.pairs.image[chosen].to(self.device).permute(0, 3, 1, 2).float() / 127.5 - 1
        target = self.pairs.target[chosen]
        if not isinstance(self.pairs.target, Tensor):  # read just now, so checked only here
            _check_values(target, len(self.labels))
        target = target.to(self.device)
        if self.pairs.confidence is not None and s.weigh_by_confidence and target.ndim == 3:
            # An unsure pixel is worth less: it is dropped with the probability that it is wrong.
            sure = self.pairs.confidence[chosen].float() / 255
            kept = torch.rand(sure.shape, generator=self.stream) < sure
            target = target.masked_fill(~kept.to(self.device), IGNORE)
        x, target = augment(x, target, s.augment, self.stream)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bf16"):
            logits = model(x)
        loss = loss_of(logits.float(), target)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), s.clip)
        self.optimizer.step()
        self.step += 1
        return loss.item()

    def _schedule(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, min(50, self.total_steps // 10)))
        return warm * (0.5 + 0.5 * math.cos(math.pi * self.step / self.total_steps))

    def validate(self) -> float:
        """Mean IoU on the pairs held back."""
        k = len(self.labels)
        truth = self.pairs.target[self.validation]
        truth = (truth.argmax(dim=1) if truth.ndim == 4 else truth).long()
        predicted = self.student.predict(self.pairs.image[self.validation]).labels.cpu().long()
        valid = truth != IGNORE
        counts = torch.bincount((truth * k + predicted)[valid], minlength=k * k).view(k, k).double()
        union = counts.sum(0) + counts.sum(1) - counts.diag()
        return (counts.diag() / union)[union > 0].mean().item()

    def save(self, path: Path) -> None:
        """Weights, optimiser, random stream and step: tensors and JSON only."""
        facts = {"step": self.step, "settings": asdict(self.settings)}
        save_state(path, KIND, facts, {"model": self.student.model}, {"optimizer": self.optimizer}, self.stream)

    def resume(self, path: Path) -> None:
        """Go on from `save`. UsageError when the settings differ."""
        state = load_state(path, KIND)
        if state.facts["settings"] != json.loads(json.dumps(asdict(self.settings))):
            raise UsageError(
                f"got {path}, begun with other settings",
                wanted="the same settings",
                remedy=f"delete {path} to start anew",
            )
        state.restore({"model": self.student.model}, {"optimizer": self.optimizer}, self.stream)
        self.step = state.facts["step"]


def _check_values(target: Tensor, classes: int) -> None:
    """UsageError for a mask value that is neither a class nor IGNORE."""
    seen = target[target != IGNORE]
    if len(seen) and int(seen.max()) >= classes:
        raise UsageError(f"got mask value {int(seen.max())}", wanted=f"0 to {classes - 1} or {IGNORE}")


def loss_of(logits: Tensor, target: Tensor) -> Tensor:
    """Cross-entropy: target [N,H,W] with IGNORE left out, or probabilities [N,K,H,W] (all-zero pixels left out)."""
    if target.ndim == 3:
        total = F.cross_entropy(logits, target.long(), ignore_index=IGNORE, reduction="sum")
        return total / (target != IGNORE).sum().clamp(min=1)  # a batch without a sure pixel is 0, not nan
    mass = target.sum(dim=1)
    return -(target * logits.log_softmax(dim=1)).sum() / mass.sum().clamp(min=1e-6)
