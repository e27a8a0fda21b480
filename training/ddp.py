"""Data parallel training: processes that each take some rows of every batch.

``torchrun --nproc-per-node=2 -m training NAME`` starts them and names them in the environment.
They hold the same weights, and add their gradients up before each step.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn


@dataclass(frozen=True)
class ProcessGroup:
    """rank: of this process among ``size``. Rank 0 alone writes and prints."""

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        return self.rank == 0

    def part_of(self, batch: Any) -> Any:
        """The rows of ``batch``, nested tuples of tensors, that this process takes.

        All of them where there are not enough for every process.
        """
        if self.size == 1:
            return batch
        if isinstance(batch, tuple):
            return tuple(self.part_of(part) for part in batch)
        return batch if len(batch) < self.size else batch[self.rank :: self.size]

    def share_gradients(self, model: nn.Module, stop: bool) -> bool:
        """Give each process the mean gradient; whether any process was asked to stop.

        The request travels with the gradients, so all processes stop at the same step.
        """
        if self.size == 1:
            return stop
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        together = torch.cat([g.flatten() for g in gradients] + [_number(stop, gradients[0])])
        distributed.all_reduce(together)
        *shared, stops = together.split([*(g.numel() for g in gradients), 1])
        for gradient, total in zip(gradients, shared, strict=True):
            gradient.copy_((total / self.size).view_as(gradient))
        return bool(stops)


def _number(flag: bool, like: Tensor) -> Tensor:
    return like.new_full((1,), float(flag))


@contextmanager
def joined_team() -> Iterator[ProcessGroup]:
    """The team that torchrun has put this process into; one of its own without torchrun."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ProcessGroup()
        return
    distributed.init_process_group("gloo")
    try:
        yield ProcessGroup(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()
