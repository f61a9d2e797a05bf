"""Which process sees which item: the global batches are the same for any number of processes."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler

from src.randomness import generator_from


class EpochSampler(Sampler[int]):
    """Shuffles the training set anew every epoch and deals it out to the processes.

    The permutation depends on (seed, epoch) alone. Rank r takes its positions r, r + world_size, ...: the
    k-th batches of all ranks together are the k-th batch of one process with the same global batch. The last
    partial global batch is dropped.

    Yields global numbers, epoch * length + index, from which a dataset knows the epoch without being told: a
    worker that outlives the epoch cannot fall behind.

    Args:
        length: number of items in the training set.
        batch_size: items per process and step.
    """

    def __init__(self, length: int, *, batch_size: int, seed: int, rank: int, world_size: int):
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.rank, self.world_size = rank, world_size
        self.steps = length // (batch_size * world_size)
        self.epoch = 0
        if self.steps == 0:
            raise ValueError(
                f"the training set has {length} images, fewer than one global batch of "
                f"{batch_size} x {world_size} process(es): lower the batch size"
            )

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls this before every epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.steps * self.batch_size

    def __iter__(self) -> Iterator[int]:
        generator = generator_from("order", self.seed, self.epoch)
        order = torch.randperm(self.length, generator=generator).tolist()
        kept = order[: self.steps * self.batch_size * self.world_size]
        first = self.epoch * self.length
        return (first + index for index in kept[self.rank :: self.world_size])


class EvaluationSampler(Sampler[int]):
    """Every item once, in order, over all ranks: no padding, since a repeated item would count twice.

    Ranks may differ by one item, and so by one batch.
    """

    def __init__(self, length: int, *, rank: int, world_size: int):
        self.indices = range(rank, length, world_size)

    def __len__(self) -> int:
        return len(self.indices)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)
