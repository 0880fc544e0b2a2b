"""The order of samples: shuffled epochs, the same for any number of ranks, continued where they were left."""

from __future__ import annotations

from collections import Counter

import pytest

from basicsr_ext.trainer.sampling import Position, TrainSampler


def epochs(sampler: TrainSampler, numbers) -> list:
    result = []
    for epoch in numbers:
        sampler.set_epoch(epoch)
        samples = list(sampler)
        assert len(samples) == len(sampler)
        result += samples
    return result


def test_an_epoch_holds_every_index_equally_often():
    sampler = TrainSampler(10, batch_size=5, ratio=3)
    assert Counter(sample.index for sample in sampler) == dict.fromkeys(range(10), 3)
    assert [sample.position for sample in sampler] == list(range(30))


def test_a_ratio_need_not_be_whole():
    assert len(TrainSampler(10, batch_size=5, ratio=1.5)) == 15


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        return tuple(s.index for s in epochs(TrainSampler(50, batch_size=1, seed=seed), [epoch]))

    assert order(1, 0) == order(1, 0)
    assert len({order(seed, epoch) for seed in (1, 2) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize('world_size', [2, 3])
def test_ranks_share_the_batches_of_one_rank(world_size):
    one = list(TrainSampler(25, batch_size=6))
    ranks = [
        list(TrainSampler(25, batch_size=6 // world_size, world_size=world_size, rank=rank))
        for rank in range(world_size)
    ]
    for iteration in range(1, 5):
        together = sorted(s for rank in ranks for s in rank if s.iteration == iteration)
        assert together == sorted(s for s in one if s.iteration == iteration)
        assert len(together) == 6


def test_iterations_count_on_over_epochs():
    sampler = TrainSampler(10, batch_size=3)  # the tenth sample is left out
    assert sampler.iterations_per_epoch == 3
    assert [s.iteration for s in epochs(sampler, [0, 1, 2])] == [i for i in range(1, 10) for _ in range(3)]


@pytest.mark.parametrize('iteration', range(10))
def test_a_run_goes_on_where_it_was_left(iteration):
    def sampler(start=Position()):
        return TrainSampler(13, batch_size=2, world_size=2, rank=1, seed=5, start=start)

    whole = epochs(sampler(), range(5))
    position = sampler().position_after(iteration)
    rest = epochs(sampler(position), range(position.epoch, 5))
    assert rest == [sample for sample in whole if sample.iteration > iteration]
    assert sampler(position).position_after(iteration + 4) == sampler().position_after(iteration + 4)


def test_another_world_size_goes_on_at_the_same_sample():
    one = TrainSampler(24, batch_size=2, seed=5)
    position = one.position_after(3)
    ranks = [TrainSampler(24, batch_size=2, world_size=2, rank=rank, seed=5, start=position) for rank in (0, 1)]
    samples = sorted(sample for rank in ranks for sample in epochs(rank, [0]))
    assert [s[:3] for s in samples] == sorted(s[:3] for s in one if s.iteration > 3 and s.position < 6 + 4 * 4)
    assert {s.iteration for s in samples} == {4, 5, 6, 7}
