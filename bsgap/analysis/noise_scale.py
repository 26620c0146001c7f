"""The gradient noise scale from what was measured during training, and beside the critical batch size.

B_simple = tr Σ / ‖G‖² (McCandlish et al. 2018, 1812.06162, §2.2, equation 2.9), in examples. G is the gradient of the
mean loss over the n training examples and Σ the covariance of one example's gradient, with n − 1 in its denominator.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from bsgap.analysis.candidates import Candidate, Json, bounded, geometric, nearest, runs_of
from bsgap.analysis.statistics import Estimate
from bsgap.training.rows import NOISE, Record, Row

NEAR = 1.5  # rows within this factor of an update are pooled for the noise scale there


def ratio(
    gradient_square_P: np.ndarray, gradient_variance_P: np.ndarray, resamples: int = 1000, seed: int = 0
) -> Estimate:
    """B_simple from P independent measurements of ‖G‖² and tr Σ, with a bootstrap's 95 % percentile interval.

    Each is averaged before dividing, else the quotient is biased (McCandlish et al. 2018, appendix A.1); see `over` for
    means that are not positive. One measurement sets no bounds (0, inf); none gives NaN.
    """
    square_P, variance_P = np.asarray(gradient_square_P, float), np.asarray(gradient_variance_P, float)
    if not (number := len(square_P)):
        return Estimate(math.nan, math.nan, math.nan)
    value = float(over(variance_P.mean(), square_P.mean()))
    if number == 1:
        return Estimate(value, 0, math.inf)
    index_RxP = np.random.default_rng(seed).integers(number, size=(resamples, number))
    value_R = over(variance_P[index_RxP].mean(1), square_P[index_RxP].mean(1))
    # A quantile between a finite and an infinite value would be NaN.
    low, high = np.quantile(value_R, (0.025, 0.975), method='inverted_cdf')
    return Estimate(value, float(low), float(high))


def over(variance: np.ndarray, square: np.ndarray) -> np.ndarray:
    """tr Σ / ‖G‖² of any shape, float64: inf where ‖G‖² is not positive, and 0 where tr Σ is below 0."""
    positive = np.maximum(variance, 0)
    return np.divide(positive, square, out=np.full_like(positive, math.inf), where=square > 0)


def in_training(reached: Iterable[Mapping[str, Any]], sound: Sequence[Candidate]) -> list[Json]:
    """A line for each entry of `to_target`: of all seeds, the rows within a factor `NEAR` of an update together."""
    lines = []
    for entry in reached:
        rows = [row for run in runs_of(sound, entry) for row in _measured(run)]
        examples = {row['update']: row['examples'] for row in rows}
        points = [
            {'update': update, 'examples': examples[update], 'noise_scale': estimate}
            for update in sorted(examples)
            if (estimate := _pooled(_near(rows, update)))
        ]
        if points:
            lines.append({key: entry[key] for key in ('batch_size', 'learning_rate')} | {'points': points})
    return lines


def beside(b_crit: float, lines: Sequence[Mapping[str, Any]], sound: Sequence[Candidate]) -> Json:
    """At the batch size nearest to B_crit, of `lines`, those that reached the target:

    noise_scale: its mean over the updates to the target; noise_over_b_crit: that over B_crit, which is taken for exact;
    noise_growth: that of the updates after the target over that of the first tenth of the updates to it.
    """
    entry, found = nearest(lines, b_crit), dict[str, Any]()
    pairs = [(_measured(run), each['updates']) for run, each in zip(runs_of(sound, entry), entry['runs'], strict=True)]
    means = [_mean_over_updates([row for row in rows if row['update'] <= target]) for rows, target in pairs]
    if known := [mean for mean in means if mean]:
        found['noise_scale'] = geometric(known)
        found['noise_over_b_crit'] = {end: value and value / b_crit for end, value in found['noise_scale'].items()}
    early = [_pooled([row for row in rows if row['update'] <= max(8, target / 10)]) for rows, target in pairs]
    late = [_pooled([row for row in rows if row['update'] >= target]) for rows, target in pairs]
    growth = [after['value'] / before['value'] for before, after in zip(early, late, strict=True) if before and after]
    if len(growth) == len(pairs):
        found['noise_growth'] = geometric(growth)
    return found


def _mean_over_updates(rows: Sequence[Row]) -> float | None:
    """The noise scale of one run, mean over its updates, near rows pooled; None if it is known nowhere.

    Where it changes, S_min = ∫ ds and E_min = ∫ B ds, so B_crit is its mean (McCandlish et al. 2018, §2.3).
    """
    total = weight = before = 0.0
    for row in rows:
        square, variance = (np.mean([near[column] for near in _near(rows, row['update'])]) for column in NOISE)
        if square > 0 and variance > 0:
            total += (row['update'] - before) * float(variance / square)
            weight += row['update'] - before
        before = row['update']
    return total / weight if weight else None


def _measured(run: Record) -> list[Row]:
    """The rows with an estimate of the noise scale."""
    return [row for row in run.rows if row['update'] and all(math.isfinite(row.get(c, math.nan)) for c in NOISE)]


def _pooled(rows: Sequence[Row]) -> Json | None:
    """The noise scale of measurements together; None where one of their means is not positive."""
    square_P, variance_P = (np.asarray([row[column] for row in rows]) for column in NOISE)
    found = ratio(square_P, variance_P)
    return bounded(*found) if 0 < found.value < math.inf else None


def _near(rows: Iterable[Row], update: float) -> list[Row]:
    return [row for row in rows if 1 / NEAR <= row['update'] / update <= NEAR]
