"""Several processes that train one student, started by torchrun: a step over N shares of a batch is one over the batch.

All ranks hold the same weights and draw the same numbers for the whole batch; each works on its rows. So that N ranks
compute what one process would, three things are summed over them: gradients (DistributedDataParallel), the number of
pixels that a mean loss is divided by, and the statistics of batch normalisation. The order of sums in float32 alone
still differs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from inspect import signature

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.nn.parallel import DistributedDataParallel

from gansegctl.errors import GansegError, UsageError

SILENCE = timedelta(minutes=10)
"""How long a rank waits for the others before it gives them up; longer than any validation or save takes."""
_LOST = (
    "closed by peer",
    "reset by peer",
    "broken pipe",
    "timed out",
    "timeout",
    "remote process",
    "connection refused",
)


@dataclass(frozen=True)
class Ranks:
    """This process is `rank` of `world`. statistics: the group that batch normalisation speaks in, apart from DDP's."""

    rank: int = 0
    world: int = 1
    statistics: dist.ProcessGroup | None = None

    @property
    def lead(self) -> bool:
        """Whether it is this process that writes and speaks."""
        return self.rank == 0

    def rows(self, count: int) -> slice:
        """This rank's rows of a batch of `count`, a multiple of `world`."""
        each = count // self.world
        return slice(self.rank * each, (self.rank + 1) * each)

    def add(self, values: Tensor) -> Tensor:
        """`values`, summed over all ranks in place."""
        if self.world > 1:
            dist.all_reduce(values)
        return values

    def of_lead(self, value: int, device: torch.device) -> int:
        """The number that rank 0 holds, on every rank."""
        sent = torch.tensor([int(value) if self.lead else 0], device=device)
        return int(self.add(sent))

    def joint(self, model: nn.Module, device: torch.device) -> nn.Module:
        """`model` with batch normalisation over all ranks; the same parameters under the same names."""
        if self.world == 1:
            return model
        if device.type == "cuda":
            return nn.SyncBatchNorm.convert_sync_batchnorm(model, self.statistics)
        return _with_joint_norms(model, self)

    def network(self, model: nn.Module, device: torch.device) -> nn.Module:
        """`model` for a training step: itself, or wrapped so that its gradients are the mean over the ranks."""
        if self.world == 1:
            return model
        ids = [device] if device.type == "cuda" else None
        # Buffers need no broadcast: the statistics of joint normalisation are the same everywhere.
        if "forward_sync_buffers" in signature(DistributedDataParallel).parameters:
            return DistributedDataParallel(model, device_ids=ids, forward_sync_buffers=False)
        return DistributedDataParallel(model, device_ids=ids, broadcast_buffers=False)  # its name to torch 2.12


ONE_RANK = Ranks()


@contextlib.contextmanager
def process_group(device: str, environ: Mapping[str, str]) -> Iterator[Ranks]:
    """Meet the other processes that torchrun started (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT): nccl on a GPU, else
    gloo. Alone where there are none.

    Errors: UsageError for variables that are not torchrun's; GansegError in every rank that is left when one is gone.
    """
    rank, world = (_number(environ, name) for name in ("RANK", "WORLD_SIZE"))
    if world is None or world == 1:
        yield ONE_RANK
        return
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not environ.get(name)]
    if missing or rank is None or not 0 <= rank < world:
        raise UsageError(
            f"got WORLD_SIZE={world} and RANK={environ.get('RANK')}"
            + (f", no {', '.join(missing)}" if missing else ""),
            wanted="what torchrun sets",
            remedy="start it by `torchrun --nproc-per-node N -m gansegctl distill …`, or unset WORLD_SIZE",
        )
    gpu = device.startswith("cuda")
    if gpu:
        torch.cuda.set_device(torch.device(device))
    try:
        dist.init_process_group("nccl" if gpu else "gloo", rank=rank, world_size=world, timeout=SILENCE)
        yield Ranks(rank, world, dist.new_group())
        dist.destroy_process_group()
    except (RuntimeError, ConnectionError) as e:
        if not any(word in str(e).lower() for word in _LOST):
            raise
        with contextlib.suppress(RuntimeError, ValueError):  # its threads end here, or abort the interpreter's own end
            dist.destroy_process_group()
        raise GansegError(
            f"got rank {rank} of {world} left alone: {str(e).splitlines()[0][:200]}",
            wanted="all ranks to the end",
            remedy="see what the rank that ended first says; the same command goes on from the last epoch",
        ) from e


def _number(environ: Mapping[str, str], name: str) -> int | None:
    text = environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else None


class _GroupCtx(FunctionCtx):
    group: dist.ProcessGroup | None


class _Summed(torch.autograd.Function):
    """y = Σ over ranks of x; since every rank's loss depends on y, so is the gradient of x a sum over them."""

    @staticmethod
    def forward(ctx: _GroupCtx, x: Tensor, group: dist.ProcessGroup | None) -> Tensor:
        ctx.group = group
        y = x.clone()
        dist.all_reduce(y, group=group)
        return y

    @staticmethod
    def backward(ctx: _GroupCtx, gradient: Tensor) -> tuple[Tensor, None]:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient, group=ctx.group)
        return gradient, None


class JointBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation (Ioffe and Szegedy 2015) whose mean and variance are those of all ranks' rows together.

    For CPUs, where torch's SyncBatchNorm is not to be had. Every rank must bring equally many values.
    """

    ranks: Ranks = ONE_RANK

    def forward(self, x: Tensor) -> Tensor:
        """x [N,C,H,W] → the same shape; in evaluation by the running statistics, without the other ranks."""
        if not self.training:
            return super().forward(x)
        world, group = self.ranks.world, self.ranks.statistics
        wide = x if x.dtype == torch.float64 else x.float()
        mean = _Summed.apply(wide.mean(dim=(0, 2, 3)), group) / world  # [C]
        centred = wide - mean[:, None, None]
        variance = _Summed.apply(centred.square().mean(dim=(0, 2, 3)), group) / world  # [C]
        if self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None:
            with torch.no_grad():
                count = world * x.numel() // x.shape[1]
                self.num_batches_tracked += 1
                share = 1 / int(self.num_batches_tracked) if self.momentum is None else self.momentum
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * (count / max(count - 1, 1)), share)
        gain = self.weight * (variance + self.eps).rsqrt()
        return (centred * gain[:, None, None] + self.bias[:, None, None]).to(x.dtype)


def _with_joint_norms(module: nn.Module, ranks: Ranks) -> nn.Module:
    for name, child in module.named_children():
        module.add_module(name, _with_joint_norms(child, ranks))
    if type(module) is not nn.BatchNorm2d:
        return module
    joint = JointBatchNorm2d(module.num_features, module.eps, module.momentum)
    joint.weight, joint.bias = module.weight, module.bias
    joint.running_mean, joint.running_var = module.running_mean, module.running_var
    joint.num_batches_tracked, joint.ranks = module.num_batches_tracked, ranks
    return joint.train(module.training)
