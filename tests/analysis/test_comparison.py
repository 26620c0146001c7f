"""Comparisons by hand, against SciPy, and their error rates on simulated answers."""

import math

import numpy as np
import pytest
import scipy.stats

from benchmarks.power import simulate
from bsgap.analysis.comparison import Comparison, compare, examples_to_tell, mean


def answers(errors: int, seeds: int = 6, examples: int = 1000) -> np.ndarray:
    """All seeds wrong on the same first examples."""
    return np.tile(np.arange(examples) >= errors, (seeds, 1))


def test_an_accuracy_of_seeds_that_agree_has_wilsons_interval() -> None:
    """Then only the examples are random, and the seeds add nothing."""
    found = mean(answers(20))
    wilson = scipy.stats.binomtest(980, 1000).proportion_ci(method='wilson')
    assert found.value == 0.98
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), rel=1e-3)


@pytest.mark.parametrize(('errors', 'value'), [(0, 1.0), (1000, 0.0)])
def test_an_accuracy_without_a_variance_has_an_interval(errors: int, value: float) -> None:
    found = mean(answers(errors))
    wilson = scipy.stats.binomtest(1000 - errors, 1000).proportion_ci(method='wilson')
    assert found.value == value
    assert (found.low, found.high) == pytest.approx((wilson.low, wilson.high), abs=1e-5)
    assert 0 <= found.low < found.high <= 1


def test_one_seed_tells_no_interval_and_no_verdict() -> None:
    assert mean(answers(20, seeds=1)) == pytest.approx((0.98, math.nan, math.nan), nan_ok=True)
    found = compare({'a': answers(20, seeds=1), 'b': answers(30), 'c': answers(29), 'd': answers(300)}, 0.001)
    assert [found[key].verdict for key in 'cd'] == ['undecided', 'worse']
    assert found['a'].verdict == 'best'
    assert found['b'].verdict == 'undecided'
    assert found['b'].difference[1:] == (-math.inf, math.inf)
    pair = compare({'a': answers(20, seeds=1), 'b': answers(30)}, 0.001)
    assert pair['b'].difference == pytest.approx((-0.01, -math.inf, math.inf))
    assert found['b'].seeds_needed is found['b'].examples_needed is None
    assert examples_to_tell(0.001, {'a': answers(20, seeds=1), 'b': answers(30)}) is None


@pytest.mark.parametrize('spread', [0.03, 0.3])
def test_an_accuracy_covers_that_of_other_seeds_and_other_examples(spread: float) -> None:
    rng = np.random.default_rng(0)
    found = [mean(simulate(rng, [0], [spread], 6, 1000)[0]) for _ in range(500)]
    assert 0.925 < np.mean([each.low < 0.975 < each.high for each in found]) < 0.98
    assert all(0 <= each.low < each.value < each.high <= 1 for each in found)


def test_what_the_seeds_share_does_not_count_twice() -> None:
    """Each seed wrong on examples of its own: one binomial sample of S × N answers."""
    rng = np.random.default_rng(0)
    found = [mean(rng.random((40, 200)) > 0.1) for _ in range(50)]
    half_width = 2 * math.sqrt(0.09 / 8000)
    assert np.mean([each.high - each.low for each in found]) == pytest.approx(2 * half_width, rel=0.2)


def test_an_accuracy_has_students_interval_where_seeds_differ_most() -> None:
    rng = np.random.default_rng(4)
    correct_SxN = np.stack([rng.permutation(1000) < n for n in (850, 900, 950, 930, 870, 900)])
    found, student = mean(correct_SxN), scipy.stats.ttest_1samp(correct_SxN.mean(1), 0).confidence_interval()
    assert found.high - found.low == pytest.approx(student.high - student.low, rel=0.1)


def test_two_seeds_that_happen_to_be_level_still_vary() -> None:
    rng = np.random.default_rng(5)
    level = {
        key: np.stack([rng.permutation(1000) < right for _ in range(2)]) for key, right in (('a', 900), ('b', 890))
    }
    difference = compare(level, 0.001)['b'].difference
    assert difference.high - difference.value > 1.64 * math.sqrt(2 * 0.09 / 2000)


def test_two_settings_have_the_interval_of_a_paired_t_test_over_examples() -> None:
    """Where seeds agree, with α = 5 % on each side."""
    rng = np.random.default_rng(1)
    right_2xN = rng.random((2, 400)) > [[0.05], [0.2]]
    found = compare({key: np.tile(right_N, (6, 1)) for key, right_N in zip('ab', right_2xN, strict=True)}, 0.01)
    paired = scipy.stats.ttest_rel(*right_2xN[::-1].astype(float)).confidence_interval(0.9)
    assert found['b'].difference[1:] == pytest.approx(paired, rel=0.02)
    assert found['b'].verdict == 'worse'
    assert found['a'] == Comparison((0, 0, 0), 'best')


def test_two_settings_have_the_interval_of_welchs_test_over_seeds() -> None:
    """Where each seed is right on all examples of a kind or on none, so many that the examples tell nothing more."""
    rng = np.random.default_rng(2)
    counts = {'a': rng.integers(940, 950, 6), 'b': rng.integers(900, 950, 4)}
    correct = {key: np.stack([rng.permutation(1000) < n for n in of]) for key, of in counts.items()}
    found = compare(correct, 0.01)['b'].difference
    welch = scipy.stats.ttest_ind(*(counts[key] / 1000 for key in 'ba'), equal_var=False).confidence_interval(0.9)
    assert found[1:] == pytest.approx(welch, rel=0.15)
    assert found.value == pytest.approx(counts['b'].mean() / 1000 - counts['a'].mean() / 1000)


def test_verdicts() -> None:
    """Seeds agree, and no example tells two apart by chance: 'as good' comes before 'worse'."""
    near, far = answers(21, examples=100_000), answers(200, examples=100_000)
    found = compare({'first': answers(20, examples=100_000), 'near': near, 'far': far}, 0.001)
    assert [each.verdict for each in found.values()] == ['best', 'as good', 'worse']
    assert -0.001 < found['near'].difference.low < found['near'].difference.value == pytest.approx(-1e-5)
    alone = compare({'one': near}, 0.001)
    assert alone == {'one': Comparison((0, 0, 0), 'best')}
    same = compare({'a': near, 'b': near}, 0.001)
    assert sorted(each.verdict for each in same.values()) == ['as good', 'best']
    significant = compare({'a': answers(20, examples=100_000), 'b': answers(40, examples=100_000)}, 0.001)['b']
    assert significant.difference.high < 0
    assert significant.verdict == 'as good'


def test_each_of_several_settings_is_held_to_less_than_5_percent() -> None:
    """Three comparisons with the best, at 1 − 0.95^(1/3) each; seeds agree, and 10 of 10⁵ examples differ."""
    wrong = {'a': 20, 'b': 30, 'c': 1000, 'd': 2000}
    found = compare({key: answers(errors, examples=100_000) for key, errors in wrong.items()}, 1e-5)['b'].difference
    error = math.sqrt(1e-4 * (1 - 1e-4) / 1e5)
    level = 1 - 0.95 ** (1 / 3)
    assert (found.high - found.value) / error == pytest.approx(scipy.stats.t.isf(level, 20), rel=0.01)


def test_as_good_is_as_good_as_all_that_may_be_the_best() -> None:
    correct = {'first': answers(20, examples=100_000), 'near': answers(21, examples=100_000)}
    assert compare(correct, 0.001)['near'].verdict == 'as good'
    unknown = {**correct, 'unknown': answers(25, seeds=1, examples=100_000)}
    assert compare(unknown, 0.001)['near'].verdict == 'undecided'


def test_a_noisy_winner_does_not_hide_what_another_shows() -> None:
    """The two others differ for certain, whichever of them the winner, of which little is known, may beat."""
    rng = np.random.default_rng(0)
    wild = np.stack([rng.permutation(5000) < n for n in (4990, 4500, 4999, 4999, 4800, 4990)])
    found = compare({'good': answers(150, examples=5000), 'bad': answers(400, examples=5000), 'wild': wild}, 0.001)
    assert found['wild'].verdict == 'best'
    assert found['good'].verdict == 'undecided'
    assert found['bad'].verdict == 'worse'


def test_seeds_that_are_needed_do_and_fewer_do_not() -> None:
    """By making them: copies of six seeds have their mean and almost their variance."""
    rng = np.random.default_rng(3)
    few = {key: np.stack([rng.permutation(2000) < n for n in of]) for key, of in counts_apart().items()}
    told = compare(few, 0.0005)['b']
    assert told.verdict == 'undecided'
    assert told.examples_needed is None
    assert told.seeds_needed
    for share_of, verdict in ((0.7, 'undecided'), (1.4, 'worse')):
        times = round(told.seeds_needed * share_of / 6)
        accuracies = {key: np.resize(of, 6 * times) for key, of in counts_apart().items()}
        many = {key: np.stack([rng.permutation(2000) < n for n in of]) for key, of in accuracies.items()}
        assert compare(many, 0.0005)['b'].verdict == verdict


def counts_apart() -> dict[str, list[int]]:
    return {'a': [1990, 1970, 1950, 1980, 1960, 1962], 'b': [1985, 1965, 1945, 1975, 1955, 1957]}


def test_examples_are_needed_where_no_seeds_would_do() -> None:
    """Seeds agree: 12 examples of 1000 are wrong in one setting alone, 10 in the other."""
    few = {'a': np.tile(np.arange(1000) >= 10, (6, 1)), 'b': np.tile(np.arange(1000) < 988, (6, 1))}
    told = compare(few, 0.001)['b']
    assert told.verdict == 'undecided'
    assert told.seeds_needed is None
    assert told.examples_needed
    times = math.ceil(told.examples_needed / 1000)
    assert compare({key: np.tile(right, (1, times)) for key, right in few.items()}, 0.001)['b'].verdict == 'worse'
    needed = examples_to_tell(0.002, few)
    assert needed == math.ceil((0.022 - 0.002**2) * 1000 / 999 * (scipy.stats.norm.ppf(0.95) / 0.002) ** 2)
    assert examples_to_tell(0.002, {'a': few['a']}) is None


def test_what_accuracies_may_be_off_by_comes_on_top_of_every_bound() -> None:
    correct = {
        'a': answers(20, examples=100_000),
        'b': answers(40, examples=100_000),
        'c': answers(70, examples=100_000),
    }
    plain, off = compare(correct, 0.001), compare(correct, 0.001, {'a': 0.0001, 'b': 0.0008})
    assert off['b'].difference.low == pytest.approx(plain['b'].difference.low - 0.0009)
    assert off['c'].difference.high == pytest.approx(plain['c'].difference.high + 0.0001)
    assert [plain['b'].verdict, off['b'].verdict] == ['as good', 'undecided']
    assert compare(correct, 0.001, {'a': 0.002})['b'][2:] == (None, None)  # neither seeds nor examples would do


def test_where_the_rule_of_three_decides_no_seeds_would_do() -> None:
    """Two that agree on all of 76 examples: 0.1 points take −log(0.05)/0.001 of them, however many seeds there are."""
    alike = np.tile(np.arange(76) > 2, (6, 1))
    told = compare({'a': alike, 'b': alike.copy()}, 0.001)
    assert told['b'][1:] == ('undecided', None, math.ceil(-math.log(0.05) / 0.001))


def test_the_mean_of_scores_that_are_no_shares() -> None:
    """R² of six seeds on 50 examples: by Student's t with both of them, and never above 1."""
    rng = np.random.default_rng(0)
    of_seed_Sx1, of_example_N = rng.normal(0, 0.1, (6, 1)), rng.normal(0, 0.2, 50)
    low, high = mean(0.5 + of_seed_Sx1 + of_example_N), mean(0.99 + of_seed_Sx1 + of_example_N)
    assert low.value == pytest.approx(0.5 + of_seed_Sx1.mean() + of_example_N.mean())
    assert low.value - low.low == pytest.approx(low.high - low.value)
    variance = of_seed_Sx1.var(ddof=1) / 6 + of_example_N.var(ddof=1) / 50
    assert 1.96 < (low.high - low.value) / math.sqrt(variance) < scipy.stats.t.ppf(0.975, 5)
    assert (high.low < high.value, high.high) == (True, max(1, high.value))


def test_settings_with_other_examples_are_refused() -> None:
    for correct in ({}, {'a': answers(1), 'b': answers(1, examples=10)}):
        with pytest.raises(ValueError, match='same validation examples'):
            compare(correct, 0.001)


@pytest.mark.parametrize(
    'noise_K', [(0.06, 0.06, 0.06, 0.06, 0.06), (0.3, 0.06, 0.06, 0.06, 0.06), (0.06, 0.3, 0.3, 0.1, 0.1)]
)
def test_error_rates(noise_K: tuple[float, ...]) -> None:
    """Of what is told wrongly, in 300 comparisons: 5 % is allowed, and three standard errors of that are 3.8."""
    rng, verdicts = np.random.default_rng(0), []
    for _ in range(300):
        found = compare(simulate(rng, (0, 0.05, 0.1, 0.11, 0.3), noise_K, 6, 5000), 0.001)
        verdicts.append([found[i].verdict for i in range(5)])
    told_5 = {verdict: np.mean(np.array(verdicts) == verdict, axis=0) for verdict in ('worse', 'as good', 'best')}
    assert told_5['worse'][0] < 0.088
    assert told_5['as good'][2:].sum() < 0.088
    assert told_5['worse'][4] > 0.15  # it is not blind
    assert told_5['worse'][4] > told_5['worse'][1]


def test_level_settings_are_each_called_worse_rarely_and_as_good_with_enough_examples() -> None:
    rng, verdicts = np.random.default_rng(0), []
    for _ in range(60):
        found = compare(simulate(rng, (0, 0, 0.3), (0.03, 0.03, 0.03), 12, 50_000), 0.001)
        verdicts.append([found[i].verdict for i in range(3)])
    assert (np.mean(np.array(verdicts) == 'worse', axis=0)[:2] < 0.13).all()
    assert np.isin(np.array(verdicts)[:, :2], ['best', 'as good']).mean() > 0.7
    assert (np.array(verdicts)[:, 2] == 'worse').mean() > 0.95


def test_a_false_equivalence_is_rare() -> None:
    """One that is worse by a little more than the margin, where much is known."""
    rng, count = np.random.default_rng(1), 0
    for _ in range(150):
        count += compare(simulate(rng, (0, 0.11), (0.03, 0.03), 6, 20_000), 0.001)[1].verdict == 'as good'
    assert count < 0.103 * 150


def test_answers_that_are_all_alike_show_no_more_than_their_number() -> None:
    """The rule of three: of 1000 examples on which two agree, 3 in 1000 may still differ."""
    correct = np.random.default_rng(0).random((6, 1000)) < 0.9
    alike = {'one': correct[:1].repeat(6, 0), 'other': correct[:1].repeat(6, 0)}
    assert compare(alike, 0.002)['other'].verdict == 'undecided'
    assert compare(alike, 0.004)['other'].verdict == 'as good'
    assert examples_to_tell(0.002, alike) == math.ceil(-math.log(0.05) / 0.002)
