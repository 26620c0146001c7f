"""Updates and examples to a target against the batch size.

The curve is the hyperbola (S/S_min − 1)(E/E_min − 1) = 1 of McCandlish et al. 2018 (1812.06162, §2.3), with S updates
and E = B S examples at batch size B. Solved for S it reads S = S_min (1 + B_crit/B), where B_crit = E_min/S_min.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.optimize
import scipy.special

from bsgap.analysis.statistics import Estimate

REACH = 1e3  # B_crit is sought up to this factor beyond the batch sizes that were tried
NOISE_BOUNDS = (math.log(1e-3), math.log(10))  # log σ; at σ = 0 points on the curve would be infinitely likely


class Fit(NamedTuple):
    """The hyperbola through the points of a study; low is 0, or high infinite, where they set no bound."""

    s_min: Estimate  # updates that even the largest batch needs
    e_min: Estimate  # examples that even the smallest batch needs
    b_crit: Estimate  # the batch size that needs twice both, E_min / S_min
    noise: float  # σ of log S around the curve


def crossing(points: Sequence[tuple[float, float]], target: float) -> float:
    """The update at which the error first is at most `target`; infinite if it never is.

    `points` are updates, ascending, and errors. Between two of them log error is linear in log update; an axis on which
    one of the two is 0 is linear itself.
    """
    first = next((i for i, (_, error) in enumerate(points) if error <= target), None)
    if first is None:
        return math.inf
    (start, before), (end, after) = points[max(0, first - 1)], points[first]
    if first == 0:
        return float(end)
    if after > 0:
        before, after, target = math.log(before), math.log(after), math.log(target)
    part = (before - target) / (before - after)
    return float(start * (end / start) ** part if start > 0 else start + part * (end - start))


def fit(batch_size_P: Any, updates_P: Any, censored_P: Any, resamples: int = 1000, seed: int = 0) -> Fit | None:
    """Fits the hyperbola to the updates that P runs needed to reach a target.

    log S = log S_min + log(1 + B_crit/B) + normal noise, by maximum likelihood. A run with `censored_P` had not reached
    the target after its `updates_P` and contributes P(S > updates) (Tobin 1958).

    Intervals are percentiles over `resamples` of the points with replacement, widened to hold the value; of few points
    they are a little narrow (they held the truth in 82 to 93 % of 60 synthetic studies), and what all runs of a batch
    size share, such as a learning rate that misses the best one, is not in them. Where an end of B_crit's lies `REACH`
    beyond the batch sizes, the data do not bound it on that side: for all they say S_min, or E_min, is 0.

    None with fewer than three batch sizes, or than two that reached the target.
    """
    log_b_P, log_s_P, censored_P = _log(batch_size_P), _log(updates_P), np.asarray(censored_P, bool)
    if len(set(log_b_P)) < 3 or len(set(log_b_P[~censored_P])) < 2:
        return None
    bounds = [(None, None), (log_b_P.min() - math.log(REACH), log_b_P.max() + math.log(REACH)), NOISE_BOUNDS]

    def most_likely(share_P: np.ndarray) -> np.ndarray:
        """log S_min, log B_crit and log σ, where the points have these shares of the likelihood."""
        starts = []
        for log_b_crit in np.unique(log_b_P):
            curve_P = np.logaddexp(0, log_b_crit - log_b_P)
            level = share_P @ curve_P + np.average(log_s_P - curve_P, weights=share_P * ~censored_P)
            starts.append((level, log_b_crit, math.log(0.3)))
        data = log_b_P, log_s_P, censored_P, share_P
        best = min(starts, key=lambda start: _loss_and_slope(start, *data)[0])
        how: Any = {'jac': True, 'method': 'L-BFGS-B', 'bounds': bounds, 'options': {'ftol': 1e-11, 'gtol': 1e-6}}
        level, log_b_crit, log_noise = scipy.optimize.minimize(_loss_and_slope, best, data, **how).x
        return np.array([level - share_P @ np.logaddexp(0, log_b_crit - log_b_P), log_b_crit, log_noise])

    count = len(log_b_P)
    equal_P = np.full(count, 1 / count)
    best_3 = most_likely(equal_P)
    rng = np.random.default_rng(seed)
    drawn: list[np.ndarray] = []
    while len(drawn) < resamples:
        share_P = rng.multinomial(count, equal_P) / count
        if len(set(log_b_P[(share_P > 0) & ~censored_P])) > 1:  # else it tells nothing
            drawn.append(most_likely(share_P))
    log_s_min_R, log_b_crit_R, _ = np.reshape(drawn, (-1, 3)).T
    # Near a bound of the search the likelihood is as good as level, and beyond it too.
    is_flat_R = log_b_crit_R < bounds[1][0] + math.log(2)
    is_perfect_R = log_b_crit_R > bounds[1][1] - math.log(2)
    return Fit(
        _estimate(best_3[0], np.where(is_perfect_R, -np.inf, log_s_min_R)),
        _estimate(best_3[0] + best_3[1], np.where(is_flat_R, -np.inf, log_s_min_R + log_b_crit_R)),
        _estimate(best_3[1], np.where(is_perfect_R, np.inf, np.where(is_flat_R, -np.inf, log_b_crit_R))),
        math.exp(best_3[2]),
    )


def _loss_and_slope(
    params_3: Any, log_b_P: np.ndarray, log_s_P: np.ndarray, censored_P: np.ndarray, share_P: np.ndarray
) -> tuple[float, np.ndarray]:
    """Minus the mean log-likelihood (less a constant) and its slope, in the curve's mean, log B_crit and log σ.

    With the mean in place of log S_min the parameters are nearly independent, even where all scale perfectly.
    """
    level, log_b_crit, log_noise = params_3
    noise = math.exp(log_noise)
    curve_P = np.logaddexp(0, log_b_crit - log_b_P)
    slope_P = scipy.special.expit(log_b_crit - log_b_P)
    z_P = (log_s_P - level - curve_P + share_P @ curve_P) / noise
    log_beyond_P = scipy.special.log_ndtr(-z_P)
    loss_P = np.where(censored_P, -log_beyond_P, z_P**2 / 2 + log_noise)
    hazard_P = np.exp(-(z_P**2) / 2 - log_beyond_P) / math.sqrt(2 * math.pi)
    pull_P = share_P * np.where(censored_P, hazard_P, z_P)
    of_curve = -pull_P.sum() / noise, -pull_P @ (slope_P - share_P @ slope_P) / noise
    return float(share_P @ loss_P), np.array([*of_curve, share_P @ ~censored_P - pull_P @ z_P])


def _estimate(log_value: float, log_value_R: np.ndarray) -> Estimate:
    """A value with the percentile interval of its resamples, all given as logarithms; without any, unbounded."""
    low = np.quantile(log_value_R, 0.025, method='lower') if len(log_value_R) else -np.inf
    high = np.quantile(log_value_R, 0.975, method='higher') if len(log_value_R) else np.inf
    return Estimate(*(float(np.exp(x)) for x in (log_value, min(low, log_value), max(high, log_value))))


def exponent(batch_size_P: Any, value_P: Any) -> float:
    """p of value ∝ B^p, by least squares; ValueError if there are not two batch sizes, or not all is above 0."""
    log_b_P, log_value_P = _log(batch_size_P), _log(value_P)
    if len(set(log_b_P)) < 2:
        raise ValueError('an exponent needs two batch sizes')
    return float(np.polyfit(log_b_P, log_value_P, 1)[0])


def _log(values: Any) -> np.ndarray:
    values = np.asarray(values, float)
    if not ((values > 0) & np.isfinite(values)).all():
        raise ValueError('logarithms need numbers that are positive and finite')
    return np.log(values)
