"""Training a student on image/mask pairs (auto-shot, Tritrong et al. 2021 section 3.4), resumable to the bit.

Several processes may train one student (distributed.py), and a batch may be cut into passes that are added up.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from gansegctl.config import LearningSettings
from gansegctl.contracts import Progress
from gansegctl.errors import GansegError, UsageError
from gansegctl.io.image import from_uint8
from gansegctl.io.run_folder import require_same
from gansegctl.io.training_state import load_state, save_state
from gansegctl.labels import IGNORE, LabelMap
from gansegctl.students.augment import AugmentSettings, augment
from gansegctl.students.deeplab import StreamDropout
from gansegctl.students.distributed import ONE_RANK, Ranks
from gansegctl.students.mixed_pairs import mixed_pairs
from gansegctl.students.pairs import Pairs
from gansegctl.students.student import WIDTHS, Student, build

KIND = "gansegctl.distilling"
LEAST = 1e-6
"""Weight that a loss is divided by at least: one of no counted pixel is 0, not nan."""
SAVE_SECONDS, SAVE_STEPS = 30.0, 100
"""A checkpoint is renewed after so many seconds, or so many steps where an epoch ends: it waits for the disk, and an
epoch of a small set is one step."""
COUNTED = 256
"""Pairs over which the shares are counted that the classes start at."""
MOST_HELD = 2000
"""Pairs held back for validation at most: enough for the third decimal, and they are in memory together."""
HELD_BYTES = 200 << 20
"""Bytes of probabilities of all classes that validation looks at at once."""


@dataclass(frozen=True)
class StudentSettings(LearningSettings):
    """How a student is trained. `steps` 0 means `epochs` passes over the pairs.

    batch_size: images a step, of all ranks together. accumulate: passes a step is cut into, each with its own
    statistics of batch normalisation; loss and gradients are those of all pixels of the step together.
    """

    widths: tuple[int, ...] = ()  # the architecture's own
    weight_decay: float = 1e-4
    clip: float = 1.0  # of the gradient's norm
    validation: float = 0.05  # share of the pairs that is held back
    real_share: float = 0.5  # of every step, where there are real annotated images beside the pairs
    augment: AugmentSettings = field(default_factory=AugmentSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "widths", tuple(self.widths or WIDTHS.get(self.arch, ())))
        if not 0 <= self.validation < 1:
            raise UsageError(f"got validation share {self.validation}", wanted="0 to below 1")
        check_share(self.real_share)


def check_share(share: float) -> None:
    """UsageError for a share of real images that leaves nothing to one side."""
    if not 0 < share < 1:
        raise UsageError(f"got --real-share {share}", wanted="a share between 0 and 1")


class StudentTraining:
    """One training run: `run()` yields progress once an epoch, then `.student` is the result (the last weights).

    ranks: the processes that share the work, each with these same arguments. source: a name of the pairs, so that a
    run begun on others is not resumed. real: annotated images, of which `settings.real_share` of every step is drawn;
    none is held back for validation. UsageError for a batch that does not divide by the ranks and passes.
    """

    def __init__(
        self,
        pairs: Pairs,
        labels: LabelMap,
        settings: StudentSettings,
        device: str = "cpu",
        ranks: Ranks = ONE_RANK,
        source: Mapping[str, Any] | None = None,
        real: Pairs | None = None,
    ) -> None:
        for each in (pairs, real):
            if each is not None and isinstance(each.target, Tensor) and each.target.ndim == 3:
                _check_values(each.target, len(labels))
        if len(pairs.target.shape) == 4 and pairs.target.shape[1] != len(labels):
            raise UsageError(f"got {pairs.target.shape[1]} soft classes", wanted=f"{len(labels)}")
        if settings.batch_size % (ranks.world * settings.accumulate):
            raise UsageError(
                f"got batch size {settings.batch_size} in {settings.accumulate} passes of {ranks.world} processes",
                wanted=f"a multiple of {ranks.world * settings.accumulate}",
            )
        self.pairs, self.labels, self.settings, self.device = pairs, labels, settings, torch.device(device)
        self.ranks, self.source = ranks, dict(source or {})
        self.stream = torch.Generator().manual_seed(settings.seed)
        order = torch.randperm(len(pairs), generator=self.stream)
        held = min(int(len(pairs) * settings.validation), MOST_HELD)
        self.validation, self.training = order[:held], order[held:]
        channels = pairs.image.shape[3]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            model = build(settings.arch, channels, len(labels), settings.widths)
        shares = class_shares(pairs.target[self.training[:COUNTED].sort().values], len(labels))
        self.real = torch.empty(0, dtype=torch.int64)  # numbers of the real ones among all pairs
        if real is not None:
            real_shares = class_shares(real.target[torch.arange(len(real))], len(labels))
            shares += settings.real_share * (real_shares - shares)
            self.real = torch.arange(len(pairs), len(pairs) + len(real))
            self.pairs = mixed_pairs(pairs, real)
        start_at(model, shares)
        model = model.to(self.device)
        self.dtype = torch.float64 if settings.precision == "fp64" else torch.float32
        model = ranks.joint(model.to(self.dtype), self.device)
        size = (pairs.image.shape[1], pairs.image.shape[2])
        self.student = Student(model, labels, size, channels, settings.arch, settings.widths)
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
        self.network = ranks.network(model, self.device)
        self.dropouts = [m for m in model.modules() if isinstance(m, StreamDropout)]
        self.step = 0
        self.loss = [0.0, 0]  # sum and number of the losses since the last epoch's end
        self.unlearned: list[str] = []  # classes of which the last validation found no pixel

    @property
    def steps_an_epoch(self) -> int:
        return max(1, len(self.training) // self.settings.batch_size)

    @property
    def total_steps(self) -> int:
        return self.settings.steps or self.settings.epochs * self.steps_an_epoch

    def run(self, checkpoint: Path | None = None) -> Iterator[Progress]:
        """Train to the end; resumes from `checkpoint` when rank 0 sees it, and rank 0 renews it.

        That is at the end, after the first epoch, so that a full disk is noticed early, and in between as
        SAVE_SECONDS and SAVE_STEPS say.
        """
        saved: int | None = None  # the step of the last checkpoint
        if checkpoint is not None and self.ranks.of_lead(checkpoint.exists(), self.device):
            self.resume(checkpoint)
            saved = self.step
        began = time.monotonic()
        while self.step < self.total_steps:
            loss = self.train_step()
            if not math.isfinite(loss):
                raise GansegError(f"got loss {loss} at step {self.step}", remedy="lower the learning rate")
            self.loss = [self.loss[0] + loss, self.loss[1] + 1]
            ended = self.step % self.steps_an_epoch == 0 or self.step == self.total_steps
            if ended:
                facts: dict[str, Any] = {"loss": self.loss[0] / self.loss[1]}
                if len(self.validation):
                    facts["validation_miou"] = self.validate()
                self.loss = [0.0, 0]
                self.student.facts = {"steps": self.step, **self._counts(), **facts}
                if self.step == self.total_steps and self.unlearned:
                    self.student.facts["unlearned"] = self.unlearned
                    facts["note"] = (
                        f"{', '.join(self.unlearned)}: not one pixel is found in the pairs held back; "
                        "train longer (--steps, --epochs) or from another start (--seed)"
                    )
            due = ended and (saved is None or self.step >= min(saved + SAVE_STEPS, self.total_steps))
            if checkpoint is not None and self.ranks.lead and (due or time.monotonic() - began >= SAVE_SECONDS):
                self.save(checkpoint)
                saved, began = self.step, time.monotonic()
            if ended:
                yield Progress("distill", self.step, self.total_steps, "steps", facts)
        self.student.model.eval()

    def train_step(self) -> float:
        """One batch → its loss."""
        s = self.settings
        self.network.train()
        self.optimizer.param_groups[0]["lr"] = s.lr * self._schedule()
        self.optimizer.zero_grad(set_to_none=True)
        chosen = self._chosen()
        totals = torch.zeros(2, dtype=torch.float64, device=self.device)  # loss and weight, summed over pixels
        passes = chosen.split(s.batch_size // s.accumulate)
        nominal = s.batch_size * self.pairs.image.shape[1] * self.pairs.image.shape[2]
        for i, part in enumerate(passes):
            with self._gradients_apart(last=i == len(passes) - 1):
                total, weight = self._pass(part)
                (total / nominal).backward()
            totals += torch.stack([total.detach().double(), weight.double()])
        loss, weight = self.ranks.add(totals).tolist()
        # The gradients are those of total / nominal, averaged over the ranks; wanted are those of total / weight.
        factor = self.ranks.world * nominal / max(weight, LEAST)
        gradients = [p.grad for p in self.student.model.parameters() if p.grad is not None]
        torch._foreach_mul_(gradients, factor)
        torch.nn.utils.clip_grad_norm_(self.student.model.parameters(), s.clip)
        self.optimizer.step()
        self.step += 1
        return loss / max(weight, LEAST)

    def _gradients_apart(self, last: bool) -> contextlib.AbstractContextManager[None]:
        """Keeps each rank's gradients to itself, except in the last pass of a step."""
        network = self.network
        return (
            contextlib.nullcontext() if last or not isinstance(network, DistributedDataParallel) else network.no_sync()
        )

    def _chosen(self) -> Tensor:
        """Numbers of a step's pairs, int64 [batch_size]."""
        n = self.settings.batch_size
        chosen = self.training[torch.randint(len(self.training), (n,), generator=self.stream)]
        if len(self.real):
            among = torch.rand(n, generator=self.stream) < self.settings.real_share
            chosen = torch.where(among, self.real[torch.randint(len(self.real), (n,), generator=self.stream)], chosen)
        return chosen

    def _pass(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """This rank's rows of the pairs `chosen` → summed loss and weight. Every rank draws for all rows."""
        s, rows = self.settings, self.ranks.rows(len(chosen))
        mine = chosen[rows]
        x = from_uint8(self.pairs.image[mine].to(self.device))
        target = self.pairs.target[mine]
        if not isinstance(self.pairs.target, Tensor) and target.ndim == 3:  # read just now, so checked only here
            _check_values(target, len(self.labels))
        target = target.to(self.device)
        x, target = augment(x, target, s.augment, self.stream, (rows.start, len(chosen)))
        for dropout in self.dropouts:
            dropout.draw_from(self.stream, rows.start, len(chosen))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=s.precision == "bf16"):
            logits = self.network(x.to(self.dtype))
        return loss_and_weight(logits.to(self.dtype), target, s.temperature)

    def _schedule(self) -> float:
        warm = min(1.0, (self.step + 1) / max(1, min(50, self.total_steps // 10)))
        return warm * (0.5 + 0.5 * math.cos(math.pi * self.step / self.total_steps))

    def validate(self) -> float:
        """Mean IoU on the pairs held back, each rank labelling its share of them; `unlearned` is what nobody found."""
        k = len(self.labels)
        held = self.validation[self.ranks.rank :: self.ranks.world]
        counts = self._confusion(held) if len(held) else torch.zeros(k, k, dtype=torch.float64)
        counts = self.ranks.add(counts.to(self.device)).cpu()
        union = counts.sum(0) + counts.sum(1) - counts.diag()
        lost = (counts.sum(1) > 0) & (counts.diag() == 0)
        self.unlearned = [name for name, none in zip(self.labels.names, lost.tolist(), strict=True) if none]
        return (counts.diag() / union)[union > 0].mean().item()

    def _confusion(self, chosen: Tensor) -> Tensor:
        once = max(1, HELD_BYTES // (4 * len(self.labels) * self.pairs.image.shape[1] * self.pairs.image.shape[2]))
        return torch.stack([self._confusion_of(part) for part in chosen.split(once)]).sum(dim=0)

    def _confusion_of(self, chosen: Tensor) -> Tensor:
        k = len(self.labels)
        truth = self.pairs.target[chosen]
        if truth.ndim == 4:
            truth = truth.argmax(dim=1).masked_fill(truth.sum(dim=1) == 0, IGNORE)
        truth = truth.long()
        predicted = self.student.predict(self.pairs.image[chosen]).labels.cpu().long()
        valid = truth != IGNORE
        return torch.bincount((truth * k + predicted)[valid], minlength=k * k).view(k, k).double()

    def save(self, path: Path) -> None:
        """Weights, optimiser, random stream, step and the loss of an epoch begun: tensors and JSON only."""
        facts = {"step": self.step, "settings": asdict(self.settings), "data": self._data()}
        facts |= {"student": self.student.facts, "loss": self.loss}
        save_state(path, KIND, facts, {"model": self.student.model}, {"optimizer": self.optimizer}, self.stream)

    def _data(self) -> dict[str, Any]:
        """The names of the data that is learned from, as far as they are known."""
        return {"classes": list(self.student.labels.names), **self._counts(), **self.source}

    def _counts(self) -> dict[str, int]:
        real = {"real_images": len(self.real)} if len(self.real) else {}
        return {"pairs": len(self.pairs) - len(self.real)} | real

    def resume(self, path: Path) -> None:
        """Go on from `save`, every rank for itself. UsageError when the settings differ or a rank does not see it."""
        if not path.exists():
            raise UsageError(
                f"got no {path} on rank {self.ranks.rank}, which rank 0 sees", wanted="one folder for all ranks"
            )
        state = load_state(path, KIND)
        remedy = f"delete {path} to start anew, or choose another -o"
        require_same(state.facts["settings"], asdict(self.settings), path, remedy=remedy)
        require_same(state.facts["data"], self._data(), path, remedy=remedy)
        state.restore({"model": self.student.model}, {"optimizer": self.optimizer}, self.stream)
        self.step, self.student.facts, self.loss = (state.facts[key] for key in ("step", "student", "loss"))


def class_shares(target: Tensor, classes: int) -> Tensor:
    """Share of each class [K] in masks [N,H,W], IGNORE left out, or in probabilities [N,K,H,W]."""
    if target.ndim == 4:
        sums = target.double().sum(dim=(0, 2, 3))
    else:
        sums = torch.bincount(target[target != IGNORE].long().flatten(), minlength=classes)[:classes].double()
    return sums / sums.sum().clamp(min=1)


def start_at(model: nn.Module, shares: Tensor) -> None:
    """Set the biases of the logits so that an untrained student answers the classes' shares [K] (Lin et al. 2017, Focal
    Loss, section 3.3). From equal answers a class of few pixels is at times unlearned at first and never found again.
    """
    *_, bias = model.get_submodule("head").parameters()  # of the convolution that gives the logits
    logits = shares.clamp(min=1e-4).log()
    with torch.no_grad():
        bias.copy_(logits - logits.mean())


def _check_values(target: Tensor, classes: int) -> None:
    """UsageError for a mask value that is neither a class nor IGNORE."""
    seen = target[target != IGNORE]
    if len(seen) and int(seen.max()) >= classes:
        raise UsageError(f"got mask value {int(seen.max())}", wanted=f"0 to {classes - 1} or {IGNORE}")


def loss_and_weight(logits: Tensor, target: Tensor, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """Cross-entropy summed over pixels, and the sum of their weights; the loss is one over the other.

    target [N,H,W] with IGNORE left out, or probabilities [N,K,H,W], whose all-zero pixels weigh nothing. temperature T:
    of such; logits are divided by it and the loss is multiplied by T², so that gradients keep their size (Hinton et al.
    2015, section 2).
    """
    if target.ndim == 3:
        total = F.cross_entropy(logits, target.long(), ignore_index=IGNORE, reduction="sum")
        return total, (target != IGNORE).sum()
    total = -(target * (logits / temperature).log_softmax(dim=1)).sum()
    return total * temperature**2, target.sum()
