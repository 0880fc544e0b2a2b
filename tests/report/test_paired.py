"""Paired comparisons: by value on cases that can be worked out by hand, and how often the verdict is a false alarm."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from basicsr_ext.report.paired import compare, interval, small_sample_factor


def test_a_constant_gain_is_known_exactly():
    control = np.array([[30.0, 25.0], [30.1, 25.2], [29.9, 24.8]])
    result = compare(control + 0.5, control)
    assert result.difference == pytest.approx(0.5) and (result.low, result.high) == pytest.approx((0.5, 0.5))
    assert result.of_seeds == pytest.approx((0.5, 0.5, 0.5))
    assert (result.share_better, result.images, result.verdict) == (1.0, 2, 'better')
    assert compare(control, control + 0.5).verdict == 'worse'
    assert compare(control + 0.5, control, higher_is_better=False).verdict == 'worse'
    assert compare(control + 0.5, control, higher_is_better=False).share_better == 0.0


def test_the_plain_interval_is_that_of_all_draws():
    differences = np.array([[0.0, 1.0], [3.0, 8.0]])
    draws = [
        differences[np.ix_(seeds, images)].mean()
        for seeds in itertools.product(range(2), repeat=2)
        for images in itertools.product(range(2), repeat=2)
    ]
    expected = np.quantile(np.repeat(draws, 1000), [0.025, 0.975])
    assert interval(differences, widen=False, resamples=20_000) == pytest.approx(expected)


def test_few_seeds_make_a_wide_interval():
    """Of seeds alone, -1, 0 and 1: no draw lies beyond them, and the t interval of their mean does."""
    differences = np.repeat([[-1.0], [0.0], [1.0]], 4, axis=1)
    low, high = interval(differences)
    assert (low, high) == pytest.approx((-small_sample_factor(3), small_sample_factor(3)))
    assert small_sample_factor(3) == pytest.approx(math.sqrt(1.5) * 4.302653 / 1.959964, rel=1e-6)
    assert small_sample_factor(1) == 1.0


def test_one_seed_that_differs_in_sign_forbids_a_verdict():
    gains = np.repeat([[0.5], [0.5], [0.5], [0.5], [-1e-6]], 30, axis=1)
    assert compare(gains, np.zeros_like(gains)).verdict == 'no difference shown'


def test_fewer_than_three_seeds_are_a_trial():
    control = np.zeros((2, 20))
    assert compare(control + 1, control).verdict == 'trial'
    assert compare(control[:1] + 1, control[:1]).verdict == 'trial'


def test_images_count_once_for_all_seeds():
    differences = np.array([[1.0, -2.0, 3.0], [1.0, 1.0, -5.0]])
    assert compare(differences, np.zeros_like(differences)).share_better == pytest.approx(1 / 3)


@pytest.mark.parametrize('new', [np.zeros((3, 2)), np.zeros(3), np.zeros((0, 3))])
def test_scores_of_another_shape_are_refused(new):
    with pytest.raises(ValueError, match=r'\(seeds, images\)'):
        compare(new, np.zeros((3, 3)) if new.size else new)


def test_infinite_scores_are_refused():
    with pytest.raises(ValueError, match='finite'):
        compare(np.array([[math.inf], [1.0], [1.0]]), np.zeros((3, 1)))


@pytest.mark.parametrize(('seeds', 'images'), [(3, 20), (5, 134)])
@pytest.mark.parametrize('spread', ['seeds', 'images', 'both'])
def test_false_alarms_are_rare_whatever_varies(seeds, images, spread):
    generator = np.random.default_rng(1)
    of_seed, of_image = {'seeds': (1, 0.1), 'images': (0.1, 1), 'both': (1, 5)}[spread]
    alarms = 0
    for _ in range(200):
        differences = of_seed * generator.normal(size=(seeds, 1)) + of_image * generator.normal(size=(1, images))
        differences = differences + generator.normal(size=(seeds, images))
        alarms += compare(differences, np.zeros_like(differences), resamples=400).verdict != 'no difference shown'
    assert alarms <= 20  # 10 are expected of a test at 5%, with a standard deviation of 3.1
