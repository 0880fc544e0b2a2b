"""The order of samples: a shuffled epoch, the same for any number of ranks, continued where it was left."""

from __future__ import annotations

from collections import Counter

import pytest

from basicsr_ext.trainer.sampling import TrainSampler


def test_an_epoch_holds_every_index_equally_often():
    sampler = TrainSampler(10, batch_size=4, ratio=3)
    assert Counter(sample.index for sample in sampler) == dict.fromkeys(range(10), 3)
    assert [sample.position for sample in sampler] == list(range(30)) and len(sampler) == 30


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = TrainSampler(50, batch_size=1, seed=seed)
        sampler.set_epoch(epoch)
        return [sample.index for sample in sampler]

    assert order(1, 0) == order(1, 0)
    assert len({tuple(order(seed, epoch)) for seed in (1, 2) for epoch in (0, 1)}) == 4


@pytest.mark.parametrize('world_size', [2, 3])
def test_ranks_share_the_batches_of_one_rank(world_size):
    one = list(TrainSampler(24, batch_size=6))
    ranks = [
        list(TrainSampler(24, batch_size=6 // world_size, world_size=world_size, rank=rank))
        for rank in range(world_size)
    ]
    for iteration in range(1, 5):
        together = sorted(s for rank in ranks for s in rank if s.iteration == iteration)
        assert together == sorted(s for s in one if s.iteration == iteration)
        assert len(together) == 6


def test_iterations_count_on_over_epochs():
    sampler = TrainSampler(10, batch_size=3)  # the tenth sample is dropped by the loader
    assert sampler.iterations_per_epoch == 3
    sampler.set_epoch(2)
    assert [sample.iteration for sample in sampler][:9] == [7] * 3 + [8] * 3 + [9] * 3


def test_a_resumed_epoch_goes_on_where_it_was_left():
    def samples(epoch, start_iteration):
        sampler = TrainSampler(12, batch_size=2, world_size=2, rank=1, seed=5, start_iteration=start_iteration)
        sampler.set_epoch(epoch)
        result = list(sampler)
        assert len(sampler) == len(result)
        return result

    whole = samples(1, 0)
    assert samples(1, 5) == whole[2 * 2 :] == [s for s in whole if s.iteration > 5]
    assert samples(1, 6) == []
    assert samples(2, 6) == samples(2, 0)


def test_plain_indices_for_datasets_that_know_nothing_else():
    keyed, plain = TrainSampler(7, batch_size=1), TrainSampler(7, batch_size=1, keyed=False)
    assert list(plain) == [sample.index for sample in keyed]
