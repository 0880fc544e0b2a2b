"""AIL's maps: what is stored, and how an update makes them, image after image and rank beside rank."""

from __future__ import annotations

from waiting import join_all

import basicsr_ext

basicsr_ext.register()

import logging
import os
import threading

import numpy as np
import pytest
import torch

from basicsr_ext.data.crop_geometry import Geometry, augment, to_chw
from basicsr_ext.distributed import Ranks
from basicsr_ext.errors import Stopped, UserError
from basicsr_ext.functional.importance import raised_importance
from basicsr_ext.models.ail import maps as importance_update
from basicsr_ext.models.ail.map_files import ImportanceMaps, key_of, stored_importance
from basicsr_ext.models.ail.maps import make_maps


def make(maps, number, key, of_image, ranks=None):
    make_maps(maps, ranks or Ranks(), number, key, of_image, {})


def test_windows_of_maps_are_flipped_as_samples_are(tmp_path):
    rng = np.random.default_rng(0)
    values = [rng.integers(0, 256, (20, 31, 3)), rng.integers(0, 256, (17, 12, 3))]
    maps = ImportanceMaps(tmp_path, [v.shape[:2] for v in values], 3, 'uint8')
    make(maps, 0, 'key', lambda image: (torch.from_numpy(values[image].transpose(2, 0, 1) / 255), 1.0))
    for flags in np.ndindex(2, 2, 2):
        geometry = Geometry(1, 3, 2, 9, 7, *map(bool, flags))
        expected = augment(values[1][3:12, 2:9], geometry).transpose(2, 0, 1) / np.float32(255)
        torch.testing.assert_close(maps.read(geometry), torch.from_numpy(expected.astype(np.float32)), rtol=0, atol=0)


@pytest.mark.parametrize(('dtype', 'step'), [('float16', 1 / 2048), ('uint8', 1 / 255)])
def test_stored_maps_are_as_exact_as_documented(tmp_path, dtype, step):
    weights = torch.cat([torch.linspace(0, 1, 10_000), torch.tensor([0.0, 1.0, 1 - 1e-7])]).reshape(1, 1, -1)
    maps = ImportanceMaps(tmp_path, [(1, 10_003)], 1, dtype)
    make(maps, 0, 'key', lambda image: (weights, 0.0))
    stored = maps.read(Geometry(0, 0, 0, 1, 10_003))
    assert (stored - weights).min() >= 0 and (stored - weights).max() < step
    assert stored[0, 0, -3:].tolist() == [0, 1, 1]
    assert maps.record['mean'] == pytest.approx(stored.mean().item())
    assert maps.record['share_at_one'] == pytest.approx((stored == 1).float().mean().item())


@pytest.mark.parametrize('dtype', ['float16', 'uint8'])
def test_what_is_stored_is_stored_again_as_it_is(dtype):
    """Each value that the type holds in [0, 1] comes back after any number of rounds without a rise."""
    values = np.arange(256, dtype=np.uint8) if dtype == 'uint8' else np.arange(0x3C01, dtype=np.uint16).view(np.float16)
    read = torch.from_numpy(to_chw(values[None, :, None], unit_range=True)).float()
    assert np.array_equal(stored_importance(read, np.dtype(dtype)).ravel(), values)


@pytest.mark.parametrize('error_scale', [1, 10])
@pytest.mark.parametrize(('dtype', 'step'), [('float16', 1 / 2048), ('uint8', 1 / 255)])
def test_errors_of_stored_maps_add_up_to_no_more_than_documented(tmp_path, dtype, step, error_scale):
    """Ten rounds against the recursion in float64, of errors of all sizes: one-sided, and below a step for each storing."""
    generator = torch.Generator().manual_seed(1)
    exact = torch.rand(1, 40, 50, generator=generator, dtype=torch.float64)
    loss = torch.rand(1, 40, 50, generator=generator, dtype=torch.float64) * error_scale
    maps, whole = ImportanceMaps(tmp_path, [(40, 50)], 1, dtype), Geometry(0, 0, 0, 40, 50)
    make(maps, 0, 'key', lambda image: (exact, 0.0))
    for number in range(1, 11):
        before = maps.read(whole)
        raised = raised_importance(before, loss.float(), 0.15)
        make(maps, number, 'key', lambda image, raised=raised: (raised, 0.0))
        exact = raised_importance(exact, loss, 0.15)
        after = maps.read(whole)
        assert ((after > before) | (before == 1)).all() and after.max() <= 1
        error = after - exact
        assert error.min() > -1e-6 and error.max() < (number + 1) * step  # -1e-6: of sums in float32


@pytest.mark.parametrize(('dtype', 'rounds'), [('float16', 2048 * 11), ('uint8', 255)])
def test_maps_reach_1_however_small_their_rises_are(dtype, rounds):
    """A rise below half a step near 1, which rounding to the nearest would take away each round."""
    weights = torch.linspace(0, 1, 20).reshape(1, 1, -1)
    for _ in range(rounds):
        raised = raised_importance(weights, torch.full_like(weights, 9.0), 0.15)  # by 1.9e-5
        stored = stored_importance(raised, np.dtype(dtype))
        after = torch.from_numpy(to_chw(stored, unit_range=True)).float()
        assert (after >= weights).all()
        weights = after
        if (weights == 1).all():
            break
    assert (weights == 1).all()


def test_maps_of_something_else_are_not_opened(tmp_path):
    maps = ImportanceMaps(tmp_path, [(4, 4)], 1)
    make(maps, 0, 'key', lambda image: (torch.ones(1, 4, 4), 0.0))
    assert maps.open(0, 'key') and not maps.open(0, 'other') and not maps.open(1, 'key')
    assert not ImportanceMaps(tmp_path, [(4, 5)], 1).open(0, 'key')
    weights = [torch.zeros(3)]
    assert key_of(weights, {'step': 1}) == key_of([torch.zeros(3)], {'step': 1})
    assert key_of(weights, {'step': 1}) not in (key_of(weights, {'step': 2}), key_of([torch.ones(3)], {'step': 1}))


def test_an_interrupted_update_goes_on_and_other_weights_start_anew(tmp_path):
    done = []

    def interrupted(maps, key, stop=None):
        def one(image):
            if image == stop:
                raise KeyboardInterrupt
            done.append(image)
            return torch.full((1, 4, 4), image / 4), 0.0

        make(maps, 1, key, one)

    maps = ImportanceMaps(tmp_path, [(4, 4)] * 4, 1)
    with pytest.raises(KeyboardInterrupt):
        interrupted(maps, 'a', stop=2)
    assert not maps.open(1, 'a')
    interrupted(maps, 'a')
    assert done == [0, 1, 2, 3]
    assert [maps.read(Geometry(i, 0, 0, 4, 4)).mean().item() for i in range(4)] == [0, 0.25, 0.5, 0.75]
    with pytest.raises(KeyboardInterrupt):
        interrupted(maps, 'b', stop=2)
    interrupted(maps, 'c')
    assert done == [0, 1, 2, 3, 0, 1, 0, 1, 2, 3]


# ---- updates ---------------------------------------------------------------------------------------------------------


def test_images_of_like_size_go_together_and_progress_is_told(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(importance_update, '_SECONDS', 0)
    done, maps = [], ImportanceMaps(tmp_path, [(2, 2), (4, 4), (3, 3)], 1)
    with caplog.at_level(logging.INFO, 'basicsr'):
        make(maps, 3, 'key', lambda image: (done.append(image) or torch.zeros(1, *maps.shapes[image][:2]), 1.0))
    assert done == [1, 2, 0]
    told = [record.getMessage() for record in caplog.records if 'Importance of round 3' in record.getMessage()]
    assert told == [
        'Importance of round 3: 3 of 3 images are to do.',
        *(f'Importance of round 3: {count} of 3 images.' for count in (1, 2, 3)),
    ]


class Threads:
    """Ranks as threads of this process."""

    def __init__(self, count: int):
        self.barrier, self.values, self.count = threading.Barrier(count, timeout=20), [None] * count, count
        self.errors: list = [None] * count

    def gather(self, rank):
        def all_of(value):
            self.values[rank] = value
            self.barrier.wait()
            values = list(self.values)
            self.barrier.wait()
            return values

        return all_of

    def run(self, task) -> list:
        """Runs ``task(ranks)`` on every rank; returns what each raised."""

        def one(rank):
            try:
                task(Ranks(rank, self.count, self.gather(rank)))
            except Exception as error:
                self.errors[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.count)]
        for thread in threads:
            thread.start()
        join_all(threads)
        return self.errors


def test_ranks_share_the_images(tmp_path):
    done = [[], []]

    def update(ranks):
        maps = ImportanceMaps(tmp_path, [(4, 4)] * 5, 1)
        make(
            maps,
            0,
            'key',
            lambda image: (done[ranks.rank].append(image) or torch.full((1, 4, 4), image / 8), 1.0),
            ranks,
        )
        assert [maps.read(Geometry(i, 0, 0, 4, 4)).mean().item() for i in range(5)] == [i / 8 for i in range(5)]

    assert Threads(2).run(update) == [None, None]
    assert done == [[0, 2, 4], [1, 3]]


@pytest.mark.parametrize('failing', [0, 1])
@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), UserError('datasets.train: "x" is damaged')])
def test_all_ranks_end_where_one_fails_and_what_is_done_stays(tmp_path, failing, error):
    done = []

    def update(ranks, fails):
        def one(image):
            if fails and ranks.rank == failing and image >= 2:
                raise error
            done.append(image)
            return torch.zeros(1, 4, 4), 1.0

        make(ImportanceMaps(tmp_path, [(4, 4)] * 6, 1), 0, 'key', one, ranks)

    errors = Threads(2).run(lambda ranks: update(ranks, True))
    assert errors[failing] is error
    assert isinstance(errors[1 - failing], UserError) and str(errors[1 - failing]) == f'Rank {failing} failed: {error}'
    assert not (tmp_path / 'round_000').exists()
    kept = set(done) - {2, 3}
    done.clear()
    assert Threads(2).run(lambda ranks: update(ranks, False)) == [None, None]
    assert kept == {0, 1} and sorted(done) == [2, 3, 4, 5]


def test_a_full_disk_is_told(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr('os.fdatasync', full)
    with pytest.raises(UserError, match=r'importance maps cannot be written .*No space left.*--auto_resume'):
        make(ImportanceMaps(tmp_path, [(4, 4)], 1), 0, 'key', lambda image: (torch.ones(1, 4, 4), 0.0))


def test_a_round_that_lacks_a_map_is_no_round(tmp_path):
    """A rank that came back without its share, as none should."""
    maps = ImportanceMaps(tmp_path, [(4, 4)] * 2, 1)
    idle = Ranks(0, 2, lambda value: [value, (None if value is None else [], None)])
    with pytest.raises(UserError, match=r'expected the importance maps of 2 images, found 1: the update of round 0'):
        make(maps, 0, 'key', lambda image: (torch.ones(1, 4, 4), 0.0), idle)
    assert not maps.open(0, 'key')
    make(maps, 0, 'key', lambda image: (torch.ones(1, 4, 4), 0.0))
    assert maps.open(0, 'key')


def test_an_update_that_is_killed_when_it_appears_loses_nothing(tmp_path, monkeypatch):
    maps, made = ImportanceMaps(tmp_path, [(4, 4)] * 2, 1), []

    def of_image(image):
        made.append(image)
        return torch.ones(1, 4, 4), 0.0

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            make(maps, 0, 'key', of_image)
    make(maps, 0, 'key', of_image)
    assert sorted(made) == [0, 1]
    assert maps.open(0, 'key')


def test_a_request_to_stop_is_answered_at_the_next_image(tmp_path):
    maps, done, kept = ImportanceMaps(tmp_path, [(4, 4)] * 3, 1), [], []

    def leave():
        assert kept
        if len(done) == 2:
            raise Stopped(7, 15)

    with pytest.raises(Stopped):
        make(
            maps,
            0,
            'key',
            lambda image: (done.append(image) or torch.ones(1, 4, 4), 0.0),
            Ranks(keep=lambda: kept.append(True), leave_if_asked=leave),
        )
    make(maps, 0, 'key', lambda image: (done.append(image) or torch.ones(1, 4, 4), 0.0))
    assert done == [0, 1, 2]
