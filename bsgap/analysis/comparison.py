"""Which settings are the best: simultaneous comparisons with the winner, from each run's score of each example.

A score is whether an answer is right (bool), or any number of which more is better. All runs have the same N examples,
and S seeds train each setting. Seeds and examples are both random (crossed random effects), so that a result holds for
other seeds and for other examples. With s² the variance of the seeds' means and e² that of one seed's score of one
example about the example's own mean,

  variance of a mean = s²/S + (Var_x − e²/S)/N,

where Var_x is the variance over examples of the mean over seeds: the expected mean squares of a two-way layout with one
observation a cell (Searle, Casella, McCulloch 1992, §4.3). Without − e²/S the seeds' noise would count twice. The
variance of a difference is the same of the examples' differences: they are shared, and pair. Seeds are not paired: the
same seed in two settings has a correlation of about 0, and pairing by it would only lose degrees of freedom.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.special

from bsgap.analysis.statistics import LEVEL, MOST_SEEDS, Estimate


class Comparison(NamedTuple):
    """A setting against the winner, which has the highest mean score."""

    difference: Estimate  # its score minus the winner's, and its two one-sided bounds
    verdict: str  # 'best' (the winner) | 'worse' | 'as good' | 'undecided'
    seeds_needed: int | None = None  # where undecided: a setting, if what was observed were the truth
    examples_needed: int | None = None  # where no number of seeds would do


Comparisons = dict[Any, Comparison]  # by setting


class _Parts(NamedTuple):
    mean: float
    score_N: np.ndarray  # means over the seeds
    seeds: int
    variance: float  # s², of the seeds' means; NaN for one seed
    noise: float  # e²
    is_share: bool  # whether the scores were bool


class _Error(NamedTuple):
    """Of a mean: its variance, the examples' part in it, and their degrees of freedom."""

    variance: float
    freedom: float
    examples: float
    examples_freedom: float


def mean(score_SxN: Any) -> Estimate:
    """The mean score of S seeds on N examples and its 95 % interval over other seeds and other examples.

    Student's t with Satterthwaite's degrees of freedom (1946); of a share Wilson's interval (1927) with the number of
    examples that would give the same variance, p(1 − p)/variance, so that it stays within [0, 1] and has a width at a
    share of 1. One seed: NaN.
    """
    parts = _parts(score_SxN)
    if parts.seeds < 2:
        return Estimate(parts.mean, math.nan, math.nan)
    error, p = _error(parts), parts.mean
    t = float(_critical(error.freedom, LEVEL / 2))
    if not parts.is_share:
        half_width = t * math.sqrt(error.variance)
        return Estimate(p, p - half_width, max(p, min(1.0, p + half_width)))  # no score is above 1
    z2 = t**2 / (p * (1 - p) / error.variance if error.variance > 0 else len(parts.score_N))
    middle, half_width = p + z2 / 2, math.sqrt(z2 * p * (1 - p) + z2 * z2 / 4)
    low, high = (max(0.0, middle - half_width) / (1 + z2), (middle + half_width) / (1 + z2))
    return Estimate(p, min(low, p), max(min(high, 1.0), p))


def compare(scores: Mapping[Any, Any], margin: float, slack: Mapping[Any, float] | None = None) -> Comparisons:
    """Each setting (its answers SxN, with its own S) against the best: at 5 % for all verdicts together.

    Hsu's multiple comparisons with the best (1981, Ann. Stat. 9:1026; for unequal errors Edwards, Hsu 1983): all
    verdicts are right whenever the one-sided comparisons with the truly best setting are, whichever setting won. A
    setting is 'worse' if one other is shown to be better; 'as good' if it is shown to lie less than `margin` (a
    fraction) below all that are not 'worse', also where it is shown to be worse by less; 'undecided' else. If several
    settings are equally good, each is called worse in at most 5 % of the cases; that one of them is can be likelier.

    Each pair has its own error and degrees of freedom (Welch, Satterthwaite), at Šidák's level. A variance pooled over
    the settings, with Dunnett's critical values, mostly has more power but does not keep 5 %: simulated with 6 seeds,
    it called the best worse in 7 % of the cases where that had 10 times the others' noise, and this in 1 %. Where two
    answer every example alike, a difference of up to −log(level)/N may still be (the rule of three): no half width is
    less. `slack`, what else each score may be off by, either way, comes on top of every bound.

    Raises:
      ValueError: no setting, or their numbers of examples differ.
    """
    if len({np.shape(answers)[1] for answers in scores.values()}) != 1:
        raise ValueError('all settings need the same validation examples, and one setting at least')
    parts = [_parts(answers) for answers in scores.values()]
    mean_K, k = np.array([each.mean for each in parts]), len(parts)
    winner, level, n = int(mean_K.argmax()), _level(k), len(parts[0].score_N)
    slack_K = [(slack or {}).get(key, 0.0) for key in scores]
    difference_KxK, half_width_KxK = mean_K[:, None] - mean_K, np.full((k, k), math.inf)
    errors = {(i, j): _error(parts[i], parts[j]) for i in range(k) for j in range(i)}
    for (i, j), error in errors.items():
        if not math.isnan(error.variance):  # one seed bounds nothing
            half_width = max(_critical(error.freedom, level) * math.sqrt(error.variance), _least(parts, level) / n)
            half_width += slack_K[i] + slack_K[j]
            half_width_KxK[i, j] = half_width_KxK[j, i] = half_width
    high_K = (difference_KxK + half_width_KxK).min(1)
    is_rival_KxK = ~(high_K < 0) & ~np.eye(k, dtype=bool)
    low_K = np.where(is_rival_KxK, difference_KxK - half_width_KxK, math.inf).min(1)
    found: Comparisons = {}
    for i, key in enumerate(scores):
        value, half_width = float(difference_KxK[i, winner]), float(half_width_KxK[i, winner])
        bounds = 1.0 if parts[i].is_share and half_width < math.inf else math.inf
        difference = Estimate(value, max(-bounds, value - half_width), min(bounds, value + half_width))
        if i == winner:
            found[key] = Comparison(Estimate(0.0, 0.0, 0.0), 'best')
        elif low_K[i] > -margin:
            found[key] = Comparison(difference, 'as good')
        elif high_K[i] < 0:
            found[key] = Comparison(difference, 'worse')
        else:
            error, below = errors[max(i, winner), min(i, winner)], -value
            reach = max(below, margin - below) - (slack_K[i] + slack_K[winner])
            found[key] = Comparison(difference, 'undecided', *_needed(parts[i], parts[winner], error, level, reach))
    return found


def examples_to_tell(margin: float, scores: Mapping[Any, Any]) -> int | None:
    """Validation examples without which not even unlimited seeds show a difference of `margin`, a fraction: by the
    variance over examples of the difference between the two settings with the highest scores, at the level of
    `compare`. None where there are not two settings with two seeds each."""
    parts = sorted(map(_parts, scores.values()), key=lambda each: each.mean)[-2:]
    if len(parts) < 2 or min(each.seeds for each in parts) < 2:
        return None
    of_one, level = _error(*parts).examples * len(parts[0].score_N), _level(len(scores))
    return math.ceil(max(of_one * (_critical(math.inf, level) / margin) ** 2, _least(parts, level) / margin))


def _parts(score_SxN: Any) -> _Parts:
    score_SxN = np.asarray(score_SxN)
    (seeds, n), is_share = score_SxN.shape, score_SxN.dtype == bool
    score_SxN = score_SxN.astype(np.float64)
    score_N, of_seed_S = score_SxN.mean(0), score_SxN.mean(1)
    if seeds < 2:
        return _Parts(float(score_N.mean()), score_N, seeds, math.nan, math.nan, is_share)
    variance = float(of_seed_S.var(ddof=1))
    within = float(score_SxN.var(0, ddof=1).mean())
    noise = max(0.0, within - variance) * n / max(1, n - 1)
    # The seeds' answers alone let their means vary by e²/N: two seeds that happen to be level don't show less.
    return _Parts(float(score_N.mean()), score_N, seeds, max(variance, noise / n), noise, is_share)


def _least(parts: Iterable[_Parts], level: float) -> float:
    """Of the rule of three: examples × the half width that they allow; 0 of scores that are no shares."""
    return -math.log(level) if all(each.is_share for each in parts) else 0.0


def _error(ours: _Parts, other: _Parts | None = None) -> _Error:
    """Of the mean, or of the difference of two."""
    both, n = [ours, *([other] if other else [])], len(ours.score_N)
    deviation_N = ours.score_N - ours.mean - (other.score_N - other.mean if other else 0)
    noise = sum(each.noise / each.seeds for each in both)
    examples = max(0.0, float(deviation_N @ deviation_N) / max(1, n - 1) - noise) / n
    # 2 variance²/(its own variance), by the fourth moment: few examples differ at all, and the variance rests on them.
    spread = float((deviation_N**2).var()) / n**3
    examples_freedom = 2 * examples**2 / spread if spread > 0 else math.inf
    of_seeds = [(each.variance / each.seeds, each.seeds - 1) for each in both]
    terms = [*of_seeds, (examples, examples_freedom)]
    variance = sum(part for part, _ in terms)
    spread = sum(part**2 / freedom for part, freedom in terms if part > 0)
    return _Error(variance, variance**2 / spread if spread > 0 else math.inf, examples, examples_freedom)


def _needed(ours: _Parts, best: _Parts, error: _Error, level: float, reach: float) -> tuple[int | None, int | None]:
    """Seeds for a half width of `reach`, or else examples: so many that their part is half of the variance for it."""
    n = len(ours.score_N)
    if math.isnan(error.variance) or reach <= 0:
        return None, None
    least = math.ceil(_least((ours, best), level) / reach)
    seeds_C = np.arange(min(ours.seeds, best.seeds) + 1, MOST_SEEDS + 1)
    of_seeds_2xC = np.array([[ours.variance], [best.variance]]) / seeds_C
    variance_C = of_seeds_2xC.sum(0) + error.examples
    spread_C = (of_seeds_2xC**2 / (seeds_C - 1)).sum(0)
    spread_C += error.examples**2 / error.examples_freedom if error.examples else 0
    enough_C = _critical(variance_C**2 / np.maximum(spread_C, 1e-300), level) * np.sqrt(variance_C) < reach
    if enough_C.any() and least <= n:
        return int(seeds_C[enough_C.argmax()]), None
    return None, max(n + 1, least, math.ceil(2 * n * error.examples * (_critical(math.inf, level) / reach) ** 2))


def _level(settings: int) -> float:
    """Of each one-sided comparison with the best (Šidák 1967), as they are correlated positively."""
    return 1 - (1 - LEVEL) ** (1 / max(1, settings - 1))


def _critical(freedom: Any, level: float) -> Any:
    return scipy.special.stdtrit(np.minimum(freedom, 1e9), 1 - level)
