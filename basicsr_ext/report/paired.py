"""Paired comparison of two trainings on the same images with the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

LEAST_SEEDS = 3  # fewer are called a trial
LEVEL = 0.95
RESAMPLES = 10_000


class Comparison(NamedTuple):
    """What a paired comparison found; differences are in the unit of the scores.

    Attributes:
        difference: Mean over seeds and images of new minus control.
        low: Lower end of the interval of :func:`compare`.
        high: Upper end.
        of_seeds: Mean difference of each seed.
        share_better: Share of images, from 0 to 1, whose difference, averaged over the seeds, favours the new method.
        images: Number of images.
        verdict: ``better``, ``worse``, ``no difference shown``, or ``trial`` with fewer than three seeds.
    """

    difference: float
    low: float
    high: float
    of_seeds: tuple[float, ...]
    share_better: float
    images: int
    verdict: str


def compare(
    new: Sequence[Sequence[float]] | np.ndarray,
    control: Sequence[Sequence[float]] | np.ndarray,
    *,
    higher_is_better: bool = True,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Comparison:
    """Compares two methods by their scores on the same images with the same seeds.

    The interval covers 95%: a bootstrap on two levels draws seeds and images with replacement, the same images for every
    drawn seed, and takes percentiles of the mean difference. A few seeds vary less among themselves than seeds do: what the
    draw of seeds and what that of images contributes is widened by :func:`small_sample_factor`.

    ``better`` and ``worse`` need an interval that excludes 0, the same sign in every seed, and three seeds at least.

    Args:
        new: Scores (seeds, images) of the method in question; finite.
        control: Scores of the same shape, of the method that it is compared with.
        higher_is_better: Whether a higher score is a better one.
        resamples: Draws of the bootstrap.
        seed: Of these draws.

    Raises:
        ValueError: The shapes differ, there is no score, or one is not finite.
    """
    new, control = np.asarray(new, np.float64), np.asarray(control, np.float64)
    if new.shape != control.shape or new.ndim != 2 or not new.size:
        raise ValueError(f'expected two arrays (seeds, images) of one shape, found {new.shape} and {control.shape}.')
    differences = new - control
    if not np.isfinite(differences).all():
        raise ValueError('expected finite scores, found infinite ones or NaN: leave out images that both reproduce.')
    low, high = interval(differences, resamples=resamples, seed=seed)
    of_seeds = differences.mean(1)
    sign = 1 if higher_is_better else -1
    return Comparison(
        difference=float(differences.mean()),
        low=low,
        high=high,
        of_seeds=tuple(of_seeds.tolist()),
        share_better=float((sign * differences.mean(0) > 0).mean()),
        images=differences.shape[1],
        verdict=_verdict(sign * of_seeds, low, high),
    )


def _verdict(gains: np.ndarray, low: float, high: float) -> str:
    """The rule of :func:`compare`, of each seed's gain."""
    if len(gains) < LEAST_SEEDS:
        return 'trial'
    if low <= 0 <= high or not ((gains > 0).all() or (gains < 0).all()):
        return 'no difference shown'
    return 'better' if gains[0] > 0 else 'worse'


def interval(
    differences: np.ndarray, *, widen: bool = True, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Bootstraps the interval of a mean difference over seeds and images, as :func:`compare` says.

    Args:
        differences: Of scores, (seeds, images).
        widen: Make up for small samples; without it, this is the plain percentile bootstrap.
        resamples: Draws.
        seed: Of the draws.

    Returns:
        Lower and upper end.
    """
    generator = np.random.default_rng(seed)
    seeds, images = differences.shape
    shares_of_seeds = generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples) / seeds
    shares_of_images = generator.multinomial(images, np.full(images, 1 / images), resamples) / images
    means = ((shares_of_seeds @ differences) * shares_of_images).sum(1)
    if widen:
        mean = differences.mean()
        by_seeds, by_images = (
            shares_of_seeds @ differences.mean(1) - mean,
            shares_of_images @ differences.mean(0) - mean,
        )
        means += (small_sample_factor(seeds) - 1) * by_seeds + (small_sample_factor(images) - 1) * by_images
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def small_sample_factor(count: int) -> float:
    """By how much the bootstrap of a mean of ``count`` values falls short: sqrt(n / (n - 1)) t / z at 95%; 1 for one value.

    Source: Hesterberg, "What teachers should know about the bootstrap", The American Statistician 2015, section 4.
    """
    from scipy.special import ndtri, stdtrit

    if count < 2:
        return 1.0
    upper = (1 + LEVEL) / 2
    return math.sqrt(count / (count - 1)) * float(stdtrit(count - 1, upper) / ndtri(upper))
