"""Updates and examples to a target against the batch size.

The curve is the hyperbola (S/S_min − 1)(E/E_min − 1) = 1 of McCandlish et al. 2018 (1812.06162, §2.3), with S updates
and E = B S examples at batch size B. Solved for S it reads S = S_min (1 + B_crit/B), where B_crit = E_min/S_min.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from bsgap.analysis.statistics import Estimate, of_draws

REACH = 1e3  # B_crit is sought up to this factor beyond the batch sizes that were tried
FLOOR = 1e-6  # an error of 0 has no logarithm
GRID, FINER = 120, 17  # values of log B_crit at first, and in each of the three grids about the best of the one before


class Hyperbola(NamedTuple):
    """The hyperbola through the points; low is 0, or high infinite, where they set no bound."""

    s_min: Estimate  # updates that even the largest batch needs
    e_min: Estimate  # examples that even the smallest batch needs
    b_crit: Estimate  # the batch size that needs twice both, E_min / S_min


def hyperbola(batch_size_P: Any, log_updates_RxP: Any, censored_RxP: Any) -> Hyperbola | None:
    """Fits the hyperbola to P batch sizes' updates to a target, by least squares of log S, in R rows at once.

    Row 0 is of the data, the others are draws, whose 95 % percentile intervals the estimates have (`of_draws`).
    `censored_RxP` is 0 where the updates are known, 1 where these are too few, −1 where fewer might do: such a point
    counts as far as the curve lies on the wrong side of it. Where B_crit comes to lie near the end of what is sought
    (`REACH`), the data do not bound it there: for all that they say S_min, or E_min, is 0. A draw in which fewer than
    two points are known sets no bounds. None with fewer than three batch sizes, or than two known in the data.
    """
    log_b_P, log_s_RxP = log_of(batch_size_P), np.asarray(log_updates_RxP, float)
    side_RxP = np.asarray(censored_RxP, int)
    is_known_R = (side_RxP == 0).sum(1) >= 2
    if len(np.unique(log_b_P)) < 3 or not is_known_R[0]:
        return None
    log_s_min_R, log_b_crit_R = fit(log_b_P, log_s_RxP, side_RxP)
    is_flat_R = log_b_crit_R < log_b_P.min() - math.log(REACH) + math.log(2)
    is_perfect_R = log_b_crit_R > log_b_P.max() + math.log(REACH) - math.log(2)

    def estimate(log_value_R: np.ndarray, is_zero_R: np.ndarray) -> Estimate:
        log_value_R = np.where(is_zero_R, -np.inf, log_value_R)
        ends = np.where(is_known_R, log_value_R, np.inf), np.where(is_known_R, log_value_R, -np.inf)
        return Estimate(*np.exp(of_draws(*ends)).tolist())

    return Hyperbola(
        estimate(log_s_min_R, is_perfect_R),
        estimate(log_s_min_R + log_b_crit_R, is_flat_R),
        estimate(np.where(is_perfect_R, np.inf, log_b_crit_R), is_flat_R),
    )


def fit(log_b_P: np.ndarray, log_s_RxP: np.ndarray, side_RxP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log S_min and log B_crit of each row, shape [R]; `side_RxP` as `censored_RxP` in `hyperbola`."""
    low, high = log_b_P.min() - math.log(REACH), log_b_P.max() + math.log(REACH)
    grid_RxG, step = np.linspace(low, high, GRID)[None], (high - low) / (GRID - 1)
    for _ in range(4):
        curve_RxGxP = np.logaddexp(0, grid_RxG[..., None] - log_b_P)
        level_RxG, loss_RxG = _level_and_loss(log_s_RxP[:, None], curve_RxGxP, side_RxP[:, None])
        grid_RxG, best_Rx1 = np.broadcast_to(grid_RxG, loss_RxG.shape), loss_RxG.argmin(1)[:, None]
        log_s_min_Rx1, log_b_crit_Rx1 = (np.take_along_axis(each, best_Rx1, 1) for each in (level_RxG, grid_RxG))
        grid_RxG, step = log_b_crit_Rx1 + step * np.linspace(-1, 1, FINER), 2 * step / (FINER - 1)
    return log_s_min_Rx1[:, 0], log_b_crit_Rx1[:, 0]


def _level_and_loss(log_s: np.ndarray, curve: np.ndarray, side: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log S_min that fits best for given B_crit, and the sum of squares; the last axis of the arguments is P.

    Newton's method on a sum of squares and of squared hinges, convex and piecewise quadratic, ends at the minimum.
    """
    above = log_s - curve
    counts = np.broadcast_to(side == 0, above.shape)
    for _ in range(above.shape[-1] + 2):
        level = (above * counts).sum(-1, keepdims=True) / np.maximum(counts.sum(-1, keepdims=True), 1)
        before, counts = counts, (side == 0) | (side * (above - level) > 0)
        if (counts == before).all():
            break
    return level[..., 0], ((above - level) ** 2 * counts).sum(-1)


def exponent(batch_size_P: Any, value_P: Any) -> float:
    """p of value ∝ B^p, by least squares; ValueError if there are not two batch sizes, or not all is above 0."""
    log_b_P, log_value_P = log_of(batch_size_P), log_of(value_P)
    if len(set(log_b_P)) < 2:
        raise ValueError('an exponent needs two batch sizes')
    return float(np.polyfit(log_b_P, log_value_P, 1)[0])


def lowest_point(log_x_P: np.ndarray, log_error_RxP: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """log x and log error [R] at the lowest point of each row's parabola through three points, or of fewer points."""
    log_x_R, log_error_R = log_x_P[log_error_RxP.argmin(1)], log_error_RxP.min(1)
    if len(log_x_P) < 3:
        return log_x_R, log_error_R
    from_middle_P = log_x_P - log_x_P[1]
    bend_R, slope_R, level_R = np.linalg.solve(np.vander(from_middle_P, 3), log_error_RxP.T)
    is_bent_R = bend_R > 1e-9  # less is rounding
    at_R = np.divide(-slope_R, 2 * bend_R, out=np.zeros_like(bend_R), where=is_bent_R)
    at_R = at_R.clip(from_middle_P[0], from_middle_P[2])
    lowest_R = level_R + slope_R * at_R + bend_R * at_R**2
    return np.where(is_bent_R, at_R + log_x_P[1], log_x_R), np.where(is_bent_R, lowest_R, log_error_R)


def log_of(values: Any) -> np.ndarray:
    """Their logarithms; ValueError if one is not positive and finite."""
    values = np.asarray(values, float)
    if not ((values > 0) & np.isfinite(values)).all():
        raise ValueError('logarithms need numbers that are positive and finite')
    return np.log(values)
