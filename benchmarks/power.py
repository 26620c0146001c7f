"""How often does a comparison of batch sizes come to which verdict, by the true difference?

    python benchmarks/power.py

Six settings with 97.5 % accuracy or less, of which two are level and best, answer the same validation examples. They
are simulated: an example is right where a normal number above a threshold is, which is made of parts for the example,
for the example in this setting, for the seed, and for all three, so that two networks disagree on 1.5 % of the examples
if their settings differ and on 1.0 % if only their seeds do. Beyond that seeds differ by 0.03, 0.1 or 0.3 points
(standard deviation; each in two settings, dealt anew each time), as measured on MNIST at different batch sizes.
"""

import collections
import itertools
import math
from collections.abc import Sequence

import numpy as np
import scipy.special
from absl import app, flags

from bsgap.analysis.comparison import compare

REPETITIONS = flags.DEFINE_integer('repetitions', 500, 'simulated comparisons a row', lower_bound=1)
MARGIN = flags.DEFINE_float('margin', 0.1, 'equivalence margin in points')

BEST = 0.975
DIFFERENCES = (0.0, 0.0, 0.05, 0.1, 0.3, 1.0)  # points
NOISES = (0.03, 0.03, 0.1, 0.1, 0.3, 0.3)  # points
OTHER, SAME = 0.947, 0.977  # correlations of the normal numbers, of networks of different settings and of one
VERDICTS = ('worse', 'undecided', 'as good', 'best')


def simulate(
    rng: np.random.Generator, difference_K: Sequence[float], noise_K: Sequence[float], seeds: int, examples: int
) -> dict[int, np.ndarray]:
    """Which examples the runs of each setting get right, SxN, by the setting's index; arguments in points."""
    shared_N = math.sqrt(OTHER) * rng.standard_normal(examples, np.float32)
    right = {}
    for i, (difference, noise) in enumerate(zip(difference_K, noise_K, strict=True)):
        threshold = scipy.special.ndtri(BEST - difference / 100)
        scale = noise / 100 * math.sqrt(2 * math.pi) * math.exp(threshold**2 / 2)
        own_N = shared_N + math.sqrt(SAME - OTHER) * rng.standard_normal(examples, np.float32)
        rest_SxN = math.sqrt(1 - SAME) * rng.standard_normal((seeds, examples), np.float32)
        # The seed's part adds to the variance, and the accuracy over all seeds stays what it should be.
        level_S = threshold * math.sqrt(1 + scale**2) + scale * rng.standard_normal(seeds)
        right[i] = rest_SxN + own_N > -level_S[:, None].astype(np.float32)
    return right


def main(_: Sequence[str]) -> None:
    shown = sorted(set(DIFFERENCES))
    print(f'{REPETITIONS.value} repetitions a row; margin {MARGIN.value:g} points; {" / ".join(VERDICTS)}, % of each\n')
    print('| examples | seeds | ' + ' | '.join(f'{difference:g} points below' for difference in shown) + ' |')
    print('|--:|--:|' + '--:|' * len(shown))
    for examples, seeds in itertools.product((1000, 5000, 10_000, 50_000), (3, 6, 12)):
        rng, counts = np.random.default_rng(0), collections.Counter[tuple[float, str]]()
        for _repetition in range(REPETITIONS.value):
            right = simulate(rng, DIFFERENCES, rng.permutation(NOISES).tolist(), seeds, examples)
            found = compare(right, MARGIN.value / 100)
            counts.update((DIFFERENCES[i], found[i].verdict) for i in found)
        row = []
        for difference in shown:
            total = REPETITIONS.value * DIFFERENCES.count(difference)
            row.append(' / '.join(f'{100 * counts[difference, verdict] / total:.0f}' for verdict in VERDICTS))
        print(f'| {examples} | {seeds} | ' + ' | '.join(row) + ' |', flush=True)


if __name__ == '__main__':
    app.run(main)
