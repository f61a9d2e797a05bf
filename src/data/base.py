"""What the trainer may ask of any data set."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sized
from typing import Any, Literal, cast

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from src.data.on_device import DeviceSet, Numbers
from src.data.samplers import EpochSampler, EvaluationSampler

Split = Literal["train", "val", "test"]


class DataError(ValueError):
    """Data that cannot be used; one line with what is missing, where it was looked for and how to get it."""


class LateLoader(DataLoader):
    """A DataLoader that asks its sampler at the first batch instead of at iter().

    Lightning creates the iterator of a resumed run before it calls `set_epoch`: workers would already be
    fetching epoch 0.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        yield from super().__iter__()


class _Everything:
    """A set whose items are their numbers."""

    def __getitem__(self, number: int) -> int:
        return number


class ImageData(L.LightningDataModule, ABC):
    """Batches of normalised images (B, 3, S, S), float32, and labels (B,), int64.

    A data set of n items is indexed by numbers: 0..n-1 for validation and test, epoch * n + index for
    training. All randomness is a function of `seed` and that number. `seed` drives training only; the splits,
    validation and test are the same for every run. The samplers shard by process: train with
    `Trainer(use_distributed_sampler=False)`.

    Args:
        name: short name, for records.
        num_classes: what the model is built for; `check` compares it with the data.
        image_size: side S in pixels.
        batch_size: images per process.
        workers: processes that load, per training process; 0 loads in the training process.
    """

    def __init__(
        self,
        *,
        name: str,
        num_classes: int,
        image_size: int,
        batch_size: int,
        seed: int,
        workers: int,
    ):
        super().__init__()
        self.name: str = name
        self.num_classes, self.image_size = num_classes, image_size
        self.batch_size, self.seed, self.workers = batch_size, seed, workers
        self._datasets: dict[Split, Dataset[tuple[Tensor, int]]] = {}
        self._on_device: dict[Split, DeviceSet] = {}

    @property
    @abstractmethod
    def class_names(self) -> tuple[str, ...]:
        """Names in label order; needs the data in place."""

    @abstractmethod
    def check(self) -> None:
        """Cheap test that the data is usable, before any model is built; gets it if told to.

        Raises:
            DataError: with one line saying what is missing, where it was looked for and how to get it.
        """

    @abstractmethod
    def fingerprint(self) -> str:
        """Short hex of content and split: equal exactly where results may be compared; no paths, no times."""

    @abstractmethod
    def make_dataset(self, split: Split) -> Dataset[tuple[Tensor, int]]:
        """The images and labels of one split, indexed by number."""

    def make_on_device(self, split: Split, device: torch.device) -> DeviceSet | None:
        """The same pictures, made on `device`; None for sets that are too large for that, or made of files."""
        return None

    def dataset(self, split: Split) -> Dataset[tuple[Tensor, int]]:
        """As `make_dataset`, made once; the test split therefore only when somebody asks for it."""
        if split not in self._datasets:
            self._datasets[split] = self.make_dataset(split)
        return self._datasets[split]

    def length(self, split: Split) -> int:
        """Number of images; torch's type of a data set doesn't know that ours have one."""
        return len(cast(Sized, self.dataset(split)))

    def setup(self, stage: str | None = None) -> None:
        if stage in (None, "fit"):
            self.dataset("train")
        if stage in (None, "fit", "validate"):
            self.dataset("val")

    def train_dataloader(self) -> DataLoader:
        dataset = self.dataset("train")
        rank, world_size = self._process()
        sampler = EpochSampler(
            self.length("train"),
            batch_size=self.batch_size,
            seed=self.seed,
            rank=rank,
            world_size=world_size,
        )
        return self._loader("train", dataset, sampler)

    def val_dataloader(self) -> DataLoader:
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader:
        return self._evaluation_loader("test")

    def _evaluation_loader(self, split: Split) -> DataLoader:
        dataset = self.dataset(split)
        rank, world_size = self._process()
        sampler = EvaluationSampler(self.length(split), rank=rank, world_size=world_size)
        return self._loader(split, dataset, sampler)

    def _loader(self, split: Split, dataset: Dataset, sampler: EpochSampler | EvaluationSampler) -> DataLoader:
        if self._stays_on_device(split):

            def only_numbers(numbers: list[int]) -> Numbers:
                return Numbers(split, torch.tensor(numbers))

            everything = cast(Dataset, _Everything())
            return LateLoader(everything, sampler=sampler, batch_size=self.batch_size, collate_fn=only_numbers)
        return LateLoader(
            dataset,
            sampler=sampler,
            batch_size=self.batch_size,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=torch.cuda.is_available(),
        )

    def _stays_on_device(self, split: Split) -> bool:
        """Whether `split` is on the GPU that trains, where it is put at the first time."""
        device = self.trainer.strategy.root_device if self.trainer else torch.device("cpu")
        if split not in self._on_device and device.type == "cuda":
            made = self.make_on_device(split, device)
            if made is not None:
                self._on_device[split] = made
        return split in self._on_device

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Lightning's hook: of a set that is there already, pictures are made now."""
        if isinstance(batch, Numbers):
            return self._on_device[cast(Split, batch.split)].batch(batch.numbers)
        return super().transfer_batch_to_device(batch, device, dataloader_idx)

    def _process(self) -> tuple[int, int]:
        """(rank, world_size): one process where no trainer is attached, as in a notebook or a test."""
        return (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)

    def _check_num_classes(self, where: str = "") -> None:
        found = len(self.class_names)
        if self.num_classes != found:
            raise DataError(
                f"{self.name} has {found} classes{where}, the config says num_classes: {self.num_classes}; "
                f"set data.num_classes={found}"
            )
