import pytest
import torch

from src.data.samplers import EpochSampler, EvaluationSampler


def epoch_sampler(length=50, *, batch_size=4, seed=0, rank=0, world_size=1, epoch=0):
    sampler = EpochSampler(length, batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
    sampler.set_epoch(epoch)
    return sampler


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_ranks_together_see_what_one_process_sees(world_size):
    whole = list(epoch_sampler(batch_size=4 * world_size, epoch=5))
    parts = [list(epoch_sampler(rank=rank, world_size=world_size, epoch=5)) for rank in range(world_size)]
    assert {len(part) for part in parts} == {len(whole) // world_size}
    for step in range(len(whole) // (4 * world_size)):
        together = [number for part in parts for number in part[4 * step : 4 * (step + 1)]]
        assert sorted(together) == sorted(whole[4 * world_size * step : 4 * world_size * (step + 1)])


def test_numbers_carry_the_epoch():
    numbers = list(epoch_sampler(length=50, epoch=7))
    assert all(7 * 50 <= number < 8 * 50 for number in numbers)
    assert len(set(numbers)) == len(numbers) == 48  # 12 batches of 4; two items are left out


def test_order_follows_seed_and_epoch():
    first = [number % 50 for number in epoch_sampler()]
    assert first == list(epoch_sampler())
    assert first != [number % 50 for number in epoch_sampler(epoch=1)]
    assert first != list(epoch_sampler(seed=1))
    assert first != sorted(first)


def test_order_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(1)
    torch.manual_seed(0)
    list(epoch_sampler())
    assert torch.rand(1) == expected


def test_less_than_a_global_batch_is_an_error():
    with pytest.raises(ValueError, match="7 images, fewer than one global batch of 4 x 2"):
        epoch_sampler(7, world_size=2)


def test_evaluation_deals_without_padding():
    parts = [list(EvaluationSampler(10, rank=rank, world_size=4)) for rank in range(4)]
    assert [len(part) for part in parts] == [3, 3, 2, 2]
    assert sorted(number for part in parts for number in part) == list(range(10))
