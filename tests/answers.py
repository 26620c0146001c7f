"""Runs of a search, made by hand, where the right answer is known."""

import functools
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any
from unittest import mock

import numpy as np

from bsgap.analysis import answer as answers
from bsgap.analysis import scaling
from bsgap.report.answer_words import HEADINGS, add_words, paragraph, table
from bsgap.training.rows import Record

N = 1_000_000
GRID = (8, 32, 128)
ENDS = {'epochs': {'8': 1600, '32': 400, '128': 100}, 'updates': dict.fromkeys(('8', '32', '128'), 200)}
OFFSETS = (-0.001, 0.0, 0.001)  # of three seeds: mean ± 4.303 × 0.001/√3 = ± 0.00248
HALF = 0.00248434
FRESH = (3, 4, 5)  # seeds that the search has not seen
MODEL = {
    'model': 'mlp', 'hidden': [16], 'channels': [], 'batch_norm': False, 'ghost_batch': 0, 'model_arguments': {},
    'optimizer': 'sgd',
}  # fmt: skip


def record(
    name: str,
    seed: int,
    rows: Sequence[Mapping[str, float]],
    setting: tuple[int, float, int],
    stopped: bool = False,
    momentum: float = 0.0,
) -> Record:
    """A run of a batch size and a learning rate to an update; a row has its update and what was measured there."""
    size, rate, updates = setting
    fields = {**MODEL, 'batch_size': size, 'learning_rate': rate, 'momentum': momentum}
    about = {
        'name': f'{name}-seed{seed}', 'recipe': name, 'seed': seed, 'n': N, 'updates': updates, 'fields': fields,
    }  # fmt: skip
    always = {'distance': 1.0, 'validation_loss': 1.0, 'train_seconds': 3.0, 'eval_seconds': 1.0}
    return Record(about, [{**always, 'examples': size * row['update'], **row} for row in rows], {}, stopped)


def full(update: int, validation: float, test: float, train: float = 1.0) -> dict[str, float]:
    """What a row has where all splits were evaluated."""
    return {
        'update': update, 'validation_accuracy': validation, 'test_accuracy': test, 'train_accuracy': train,
        'gap': train - test, 'train_loss': 0.1,
    }  # fmt: skip


def searched(
    size: int,
    rate: float,
    accuracy: Mapping[str, tuple[float, float]] | tuple[float, float],
    seeds: Sequence[int] = (0, 1, 2),
    target_at: float = 50,
    **changes: Any,
) -> list[Record]:
    """The runs of a recipe of the search: validation and test accuracy where each budget ends, by seed ± 0.001.

    The validation error is a power law of the update that passes through 0.1 at `target_at`.
    """
    runs = []
    for seed in seeds:
        offset = OFFSETS[seed % len(OFFSETS)]
        ends = {ENDS[unit][str(size)]: unit for unit in ENDS}
        dense = [
            {'update': update, 'validation_accuracy': 1 - 0.1 * math.sqrt(target_at * 2**offset / update)}
            for update in (1, 10, 25, 90)
        ]
        at = {
            unit: accuracy[unit] if isinstance(accuracy, Mapping) else accuracy for unit in ENDS
        }  # fmt: skip
        rows = [full(end, at[unit][0] + offset, at[unit][1] + offset) for end, unit in sorted(ends.items())]
        name = f'bs{size}-lr{rate:.12g}' + (f'-m{changes["momentum"]:g}' if changes.get('momentum') else '')
        runs.append(record(name, seed, [*dense, *rows], (size, rate, max(ends)), **changes))
    return runs


def search(**changes: Any) -> dict[str, Any]:
    return {
        'target': 0.1, 'budgets': {'epochs': 0.0128, 'updates': 200}, 'updates': ENDS,
        'seconds_per_update': {'8': 0.01, '32': 0.02, '128': 0.04}, 'reference': 0.1,
        **changes,
    }  # fmt: skip


def answer(*groups: Sequence[Record], seeds: int = 3, **changes: Any) -> dict[str, Any]:
    """What `find` says of runs; the interval of the curve, which no test is about, is of few resamples."""
    about = {'config': {'dataset': 'mnist', 'seeds': seeds}, 'devices': ['cpu', 'cpu']}
    with mock.patch.object(scaling, 'fit', functools.partial(scaling.fit, resamples=10)):
        found = answers.find(about, search(**changes), list(itertools.chain.from_iterable(groups)))
    assert json.loads(json.dumps(found, allow_nan=False)) == found  # plain data
    return found


def worded(*groups: Sequence[Record], **changes: Any) -> dict[str, Any]:
    """The answer with its words, beside which all else stays."""
    before = answer(*groups, **changes)
    found = add_words(json.loads(json.dumps(before)))
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found['text'] == paragraph(found)
    assert all(len(line) == len(HEADINGS) for line in table(found))
    for name, value in before.items():
        if isinstance(value, list):
            assert [each | before for each, before in zip(found[name], value, strict=True)] == found[name]
        elif isinstance(value, dict):
            assert found[name] | value == found[name]
        else:
            assert found[name] == value
    return found


def budget(found: Mapping[str, Any], unit: str) -> dict[str, Any]:
    return next(each for each in found['budgets'] if each['unit'] == unit)


def plain(low: float = 0.9, middle: float = 0.9, high: float = 0.9) -> list[Sequence[Record]]:
    """One good learning rate at each batch size, with these accuracies, and one on either side that is worse."""
    groups: list[Sequence[Record]] = []
    for size, accuracy in zip(GRID, (low, middle, high), strict=True):
        groups += [searched(size, rate, (accuracy - loss,) * 2) for rate, loss in ((0.01, 0.02), (0.1, 0), (1.0, 0.02))]
    return groups


def power_law() -> list[Sequence[Record]]:
    """Updates to the target S = 9 (1 + 48/B) at ε = 0.1 (B/8)^½, and twice that at other ε."""
    groups: list[Sequence[Record]] = []
    for size, best in zip(GRID, (0.1, 0.2, 0.4), strict=True):
        updates = 9 * (1 + 48 / size)
        groups += [
            searched(size, rate, (0.95, 0.9), target_at=updates * (1 if rate == best else 2))
            for rate in (0.05, 0.1, 0.2, 0.4, 0.8)
        ]
    return groups


def measured(runs: Sequence[Record], scale: float) -> list[Record]:
    """With a noise scale of `scale` × update in every row."""
    rng = np.random.default_rng(0)
    return [
        run._replace(
            rows=[
                {**row, 'gradient_square': 2 + 0.01 * rng.normal(), 'gradient_variance': 2 * scale * row['update']}
                for row in run.rows
            ]
        )
        for run in runs
    ]
