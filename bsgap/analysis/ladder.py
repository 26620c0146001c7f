"""What trials of many lengths say: error against length for each batch size, and what follows for any budget or target.

Each trial was trained to the end of its own schedule. Errors are fractions of the validation examples, lengths updates,
examples or seconds. In arrays with an axis R row 0 is of the data; the others are draws of what other seeds would give.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from bsgap.analysis import scaling, trials
from bsgap.analysis.statistics import Estimate, of_draws, standard_errors

SETTING = list(trials.SETTING[1:])  # besides the batch size
NEAR = 1.02  # lengths of one budget agree within this factor, as updates are whole
SHARE = 0.05  # of the draws, in which a batch size is the best if it may be the best

Unit = Literal['updates', 'examples', 'seconds']
Off = Mapping[int, Sequence[float]]  # by batch size: what the log of a length may be off by, as times were measured


class Curve(NamedTuple):
    """What a batch size reaches after each of its L lengths, ascending, at its best learning rate."""

    batch_size: int
    best: pd.DataFrame  # the best cells: L rows of `cells`, and `edge`
    error: list[Estimate]  # theirs, over seeds; the choice among cells is not in it
    log_rate_RxL: np.ndarray  # log ε*
    log_error_RxL: np.ndarray  # at ε*; it falls, as a longer trial that is worse counts as the shorter one


class Reached(NamedTuple):
    """How many updates each of P batch sizes needs to a target."""

    batch_size_P: np.ndarray
    log_updates_RxP: np.ndarray
    censored_RxP: np.ndarray  # 0; 1 where the longest trial didn't reach it; −1 where the shortest already had
    updates: list[Estimate]  # high is infinite where its longest trial may not reach it, low 0 where its shortest may


class Laws(NamedTuple):
    """How the best learning rate grows with the batch size: ∝ B^p, and ε_max/(1 + B_0/B)."""

    better: str  # 'power' | 'saturating': by the error below
    left_out: dict[str, float]  # root mean square of what each misses log ε by, at a batch size left out of its fit
    exponent: Estimate  # p
    maximum: Estimate  # ε_max
    b_0: Estimate
    between: tuple[int, int]  # the batch sizes within which alone it advises
    log_rate_at: Callable[[float], np.ndarray]  # log B → log ε [R], by the better law

    def learning_rate(self, batch_size: float) -> Estimate | None:
        """By the better law; None outside `between`."""
        if not self.between[0] <= batch_size <= self.between[1]:
            return None
        return _exp(of_draws(self.log_rate_at(math.log(batch_size))))


def cells(climbed: pd.DataFrame, seeds: int, examples: int = 0) -> pd.DataFrame:
    """A row for each batch size, length and setting of `climbed`, ascending, with the columns

    batch_size, updates, `SETTING`; n (runs), diverged (of them); mean, sd (of the validation error, over runs that did
    not diverge; NaN where too few), loss (its mean, likewise); examples, seconds (mean); complete (all `seeds` are
    there, none diverged, and all `learned`, if there is such a column). No mean or sd is below half of one of the
    validation `examples`.
    """
    by = climbed.groupby(['batch_size', 'updates', *SETTING], dropna=False)
    error = by['validation_error']
    found = pd.DataFrame({'n': by.size(), 'mean': error.mean(), 'sd': error.std(ddof=1)})
    found['loss'], found['diverged'] = by['validation_loss'].mean(), found['n'] - error.count()
    found[['examples', 'seconds']] = by[['examples', 'seconds']].mean()
    found['complete'] = (found['n'] >= seeds) & (found['diverged'] == 0)
    if 'learned' in climbed:
        found['complete'] &= by['learned'].all()
    if examples:
        found[['mean', 'sd']] = found[['mean', 'sd']].clip(lower=0.5 / examples)
    return found.reset_index()


def curves(table: pd.DataFrame, draws: int = 1000, seed: int = 0) -> list[Curve]:
    """A curve for each batch size that has a complete cell, ascending, of the table that `cells` makes.

    A draw of a cell's log error is normal about log mean, with √(t/z) s/(√n mean) as its standard deviation, where t
    and z are the 97.5 % points of Student's distribution and the normal one. The factor √(t/z) is a compromise: t/z
    would make the interval of one cell exact and that of a function of many cells too wide, and 1 the reverse. With 6
    seeds the intervals hold the truth in 92 % (one cell) and 97 % (many) of the cases. Seeds drawn with replacement
    would give 0.91 times s/√n, and 87 %. A single seed gives no draws.

    ε*, and the error there, are the lowest point of the parabola of log error in log ε through the best cell and its
    two neighbours of the same other fields, anew in each draw: so the grid of ε puts no batch size at a disadvantage.
    It is kept within their range; without three cells, or where the parabola has no lowest point, it is the best cell.
    Where that leaves ε* at the last cell before those that diverged, the grid does not tell it by half a step either
    way: a draw of log ε* is then uniform within these.

    `best` has the columns of `cells`, and `edge`: ε* is at an end of all that was tried, so that the best may lie
    beyond (cells with diverged runs or too few seeds count as tried).
    """
    names = ('batch_size', 'updates', SETTING[0], 'n', 'complete', 'loss')
    size_C, updates_C, rate_C, n_C, is_whole_C, loss_C = (table[name].to_numpy() for name in names)
    kind_C = table.groupby(SETTING[1:], dropna=False).ngroup().to_numpy()
    mean_C, t_C = np.maximum(table['mean'].to_numpy(), scaling.FLOOR), standard_errors(n_C)
    error_C = table['sd'].to_numpy() / np.sqrt(n_C)
    sd_C = np.where(is_whole_C, np.sqrt(t_C / standard_errors(math.inf)) * error_C / mean_C, 0)
    normal_RxC = np.random.default_rng(seed).normal(size=(0 if np.isnan(sd_C).any() else draws, len(table)))
    log_error_RxC = np.log(mean_C) + np.vstack([np.zeros(len(table)), normal_RxC * sd_C])
    rng, found = np.random.default_rng(seed + 1), []
    for size in np.unique(size_C[is_whole_C]):
        rows, edges, errors, points = [], [], [], []
        for updates in np.unique(updates_C[is_whole_C & (size_C == size)]):
            rung = np.flatnonzero((size_C == size) & (updates_C == updates))
            best = min(rung[is_whole_C[rung]], key=lambda cell: (mean_C[cell], loss_C[cell]))
            tried = rung[kind_C[rung] == kind_C[best]]
            same = tried[is_whole_C[tried]]
            middle = int(np.clip(np.flatnonzero(same == best)[0], 1, max(1, len(same) - 2)))
            near = same[middle - 1 : middle + 2]
            log_rate_R, log_error_R = scaling.lowest_point(log_near := np.log(rate_C[near]), log_error_RxC[:, near])
            rows.append(best)
            edges.append(bool(np.isclose(log_rate_R[0], np.log(rate_C[tried[[0, -1]]])).any()))
            if len(near) > 1 and np.isclose(log_rate_R[0], log_near[[0, -1]]).any():
                half_step = (log_near[1] - log_near[0]) / 2
                log_rate_R[1:] += rng.uniform(-half_step, half_step, len(log_rate_R) - 1)
            points.append((log_rate_R, log_error_R))
            mean, half_width = float(table['mean'].iloc[best]), float(t_C[best] * error_C[best])
            errors.append(Estimate(mean, float(np.maximum(0, mean - half_width)), mean + half_width))
        log_rate_RxL, log_error_RxL = (np.stack(each, 1) for each in zip(*points, strict=True))
        best_L = table.iloc[rows].assign(edge=edges).reset_index(drop=True)
        found.append(Curve(int(size), best_L, errors, log_rate_RxL, np.minimum.accumulate(log_error_RxL, axis=1)))
    return found


def winners(of: Sequence[Curve], unit: Unit, off: Off | None = None, amounts: int = 60) -> pd.DataFrame:
    """The best batch size for each of a log grid of budgets, from the shortest to the longest that all of them have
    trials of: where one has none, another would win by default. log error is linear in log length between trials. Each
    draw takes what lengths are off by from one measurement.

    Returns:
      A row a budget: `amount` (float, of the unit); `winner` (int); `error`, `low`, `high` (fractions: the winner's);
      `best` (tuple of int: the winner, and those that win in at least `SHARE` of the draws).
    """
    columns = ['amount', 'winner', 'error', 'low', 'high', 'best']
    ends = np.log([curve.best[unit].iloc[[0, -1]].to_numpy(float) for curve in of]).reshape(-1, 2)
    if len(of) < 2 or (start := ends[:, 0].max()) > (end := ends[:, 1].min()) + math.log(NEAR):
        return pd.DataFrame(columns=columns)
    log_amount_G = np.linspace(start, end, amounts) if start < end else np.array([end])
    size_P, off = [curve.batch_size for curve in of], off or {}
    log_error_PxRxG = np.stack([_between(curve, unit, log_amount_G, off.get(curve.batch_size, ())) for curve in of])
    rows = []
    for amount, log_error_PxR in zip(np.exp(log_amount_G), np.moveaxis(log_error_PxRxG, 2, 0), strict=True):
        best_R = log_error_PxR.argmin(0)
        share_P = np.bincount(best_R[1:], minlength=len(of)) / max(1, len(best_R) - 1)
        may_be = tuple(size for p, size in enumerate(size_P) if share_P[p] >= SHARE or p == best_R[0])
        rows.append((float(amount), size_P[best_R[0]], *_exp(of_draws(log_error_PxR[best_R[0]])), may_be))
    return pd.DataFrame(rows, columns=columns)


def slack(curve: Curve, updates: int, off: Sequence[float]) -> float:
    """How wrong the error may be because it is not sure how many updates fit into the time: the largest error of that
    number's logarithm (`off`), times how the log error fell over the last doubling of the updates."""
    log_error_G = _between(curve, 'updates', np.log([updates / 2, updates]))[0]
    steepness = (log_error_G[0] - log_error_G[1]) / math.log(2)
    return float(math.exp(log_error_G[1]) * math.expm1(steepness * max(map(abs, off))))


def _between(curve: Curve, unit: Unit, log_amount_G: np.ndarray, off_M: Sequence[float] = ()) -> np.ndarray:
    """log error after these amounts, shape [R, G]; beyond its ends that of the end."""
    log_x_L = np.log(curve.best[unit].to_numpy(float))

    def weights(off: float) -> np.ndarray:
        return np.array([np.interp(log_amount_G - off, log_x_L, one_L) for one_L in np.eye(len(log_x_L))])

    log_error_RxG = curve.log_error_RxL @ weights(0)
    for m, off in enumerate(off_M):
        draws = slice(1 + m, None, len(off_M))
        log_error_RxG[draws] = curve.log_error_RxL[draws] @ weights(off)
    return log_error_RxG


def targets(of: Sequence[Curve], count: int = 4) -> np.ndarray:
    """Errors [R, count], descending, by a rule that was fixed before: evenly spaced in log error from the third highest
    after the shortest trials to the third lowest after the longest, ends left out, anew in each draw. So three batch
    sizes have not reached a target at first, and three do. [R, 0] where there is no such interval."""
    first_RxP, last_RxP = (np.stack([curve.log_error_RxL[:, i] for curve in of], 1) for i in (0, -1))
    if len(of) < 3:
        return np.empty((len(first_RxP), 0))
    high_R, low_R = np.sort(first_RxP, 1)[:, -3], np.sort(last_RxP, 1)[:, 2]
    part_T = np.arange(1, count + 1) / (count + 1) if high_R[0] > low_R[0] else np.empty(0)
    return np.exp(high_R[:, None] + (low_R - high_R)[:, None] * part_T)


def to_target(of: Sequence[Curve], target_R: Any) -> Reached:
    """The updates at which each curve reaches an error: a number, or one for each row, as `targets` has in a column."""
    log_target_R = np.broadcast_to(np.log(target_R), len(of[0].log_error_RxL))
    log_updates_RxP, censored_RxP = np.zeros((2, len(log_target_R), len(of)))
    updates = []
    for p, curve in enumerate(of):
        log_s_L = np.log(curve.best['updates'].to_numpy(float))
        is_there_RxL = curve.log_error_RxL <= log_target_R[:, None]
        after_R = np.where(is_there_RxL[:, -1], is_there_RxL.argmax(1), len(log_s_L) - 1)[:, None]
        before_R = np.maximum(after_R - 1, 0)
        high_R, low_R = (np.take_along_axis(curve.log_error_RxL, at_R, 1)[:, 0] for at_R in (before_R, after_R))
        part_R = np.divide(high_R - log_target_R, high_R - low_R, out=np.ones_like(low_R), where=high_R > low_R)
        log_step_R = (log_s_L[after_R] - log_s_L[before_R])[:, 0]
        log_updates_RxP[:, p] = log_updates_R = log_s_L[before_R[:, 0]] + part_R.clip(0, 1) * log_step_R
        is_before_R = curve.log_error_RxL[:, 0] < log_target_R
        censored_RxP[:, p] = side_R = np.where(is_before_R, -1, np.where(is_there_RxL[:, -1], 0, 1))
        ends = of_draws(np.where(side_R > 0, np.inf, log_updates_R), np.where(side_R < 0, -np.inf, log_updates_R))
        low = ends.low if side_R[0] >= 0 else -math.inf
        updates.append(_exp(Estimate(float(log_updates_R[0]), low, ends.high)))
    return Reached(np.array([curve.batch_size for curve in of]), log_updates_RxP, censored_RxP, updates)


def learning_rates(of: Sequence[Curve], updates: Mapping[int, int] | None = None) -> tuple[pd.DataFrame, Laws | None]:
    """ε* of each batch size after `updates[batch_size]`, or after its longest trials, and how it grows.

    Returns:
      A row for each batch size with trials of that length: `batch_size`, `updates`, `value`, `low`, `high`, `edge`.
      `Laws` by those that are not at an edge; None with fewer than three, or where they differ in other fields.
    """
    rows, log_rates = [], []
    for curve in of:
        length = updates.get(curve.batch_size) if updates else curve.best['updates'].iloc[-1]
        for i in np.flatnonzero(curve.best['updates'] == length):
            log_rate_R, best = curve.log_rate_RxL[:, i], curve.best.iloc[i]
            log_rates.append(log_rate_R)
            rows.append((curve.batch_size, int(best['updates']), *_exp(of_draws(log_rate_R)), bool(best['edge'])))
    found = pd.DataFrame(rows, columns=['batch_size', 'updates', 'value', 'low', 'high', 'edge'])
    inner_P = ~found['edge'].to_numpy(bool)
    alike = len({tuple(curve.best[SETTING[1:]].fillna(-1).iloc[-1]) for curve in of}) == 1
    if inner_P.sum() < 3 or not alike:
        return found, None
    return found, laws(found['batch_size'][inner_P].to_numpy(), np.stack(log_rates, 1)[:, inner_P])


def laws(batch_size_P: Any, log_rate_RxP: np.ndarray) -> Laws:
    """Both laws by least squares of log ε, through at least three batch sizes.

    ε_max/(1 + B_0/B) is McCandlish et al. 2018 (1812.06162, equation 2.7). Its 1/ε is the hyperbola of `scaling`, with
    1/ε_max for S_min and B_0 for B_crit, whose conventions for what is not bounded it shares.
    """
    log_b_P = scaling.log_of(batch_size_P)
    fits: dict[str, Callable[..., Callable[[float], np.ndarray]]] = {'power': _power, 'saturating': _saturating}
    left_out = {}
    for name, fitted in fits.items():
        rest = [fitted(np.delete(log_b_P, p), np.delete(log_rate_RxP[:1], p, 1)) for p in range(len(log_b_P))]
        guess_P = [of_rest(log_b)[0] for of_rest, log_b in zip(rest, log_b_P, strict=True)]
        left_out[name] = math.sqrt(np.mean((guess_P - log_rate_RxP[0]) ** 2))
    better = min(left_out, key=lambda name: left_out[name])
    hyperbola = scaling.hyperbola(batch_size_P, -log_rate_RxP, np.zeros_like(log_rate_RxP))
    assert hyperbola
    with np.errstate(divide='ignore'):
        value, high, low = (1 / np.array(hyperbola.s_min)).tolist()
    exponent = of_draws(np.polynomial.polynomial.polyfit(log_b_P, log_rate_RxP.T, 1)[1])
    between = int(min(batch_size_P)), int(max(batch_size_P))
    at_better = fits[better](log_b_P, log_rate_RxP)
    return Laws(better, left_out, exponent, Estimate(value, low, high), hyperbola.b_crit, between, at_better)


def _power(log_b_P: np.ndarray, log_rate_RxP: np.ndarray) -> Callable[[float], np.ndarray]:
    at_one_R, p_R = np.polynomial.polynomial.polyfit(log_b_P, log_rate_RxP.T, 1)
    return lambda log_b: at_one_R + p_R * log_b


def _saturating(log_b_P: np.ndarray, log_rate_RxP: np.ndarray) -> Callable[[float], np.ndarray]:
    level_R, log_b_0_R = scaling.fit(log_b_P, -log_rate_RxP, np.zeros((1, 1)))
    return lambda log_b: -level_R - np.logaddexp(0, log_b_0_R - log_b)


def _exp(estimate: Estimate) -> Estimate:
    return Estimate(*np.exp(estimate).tolist())
