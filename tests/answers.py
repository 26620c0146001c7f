"""Answers of a search, made by hand: what `bsgap.analysis.answer.find` gives, for tests of words and figures."""

import random
from collections.abc import Mapping
from typing import Any

Json = dict[str, Any]
GRID = (8, 32, 128, 512)
NOT_KNOWN = {'low': None, 'high': None}


def estimate(value: float, half_width: float | None = None) -> Json:
    if half_width is None:
        return {'value': value, **NOT_KNOWN}
    return {'value': value, 'low': value - half_width, 'high': value + half_width}


def row(size: int, below: float = 0.0, verdict: str = 'best', **changes: Any) -> Json:
    """A batch size's best setting after 2 epochs; `below` the best by so many points, ± half a point."""
    half_width = 0.005 if changes.get('seeds', 6) > 1 else None
    apart = half_width and {'best': 0.0, 'as good': 0.0003, 'worse': 0.004, 'undecided': 0.01}[verdict]
    accuracy = estimate(0.97 - below / 100, half_width)
    made: Json = {'batch_size': size, 'learning_rate': 0.1, 'momentum': 0.0, 'weight_decay': 0.0, 'beta2': 0.999}
    made |= {'updates': 20_000 // size, 'examples': 20_000, 'seconds': 2 / size**0.5}
    made |= {'test_score': accuracy, 'gap': estimate(0.02 + below / 100, half_width), 'verdict': verdict, 'seeds': 6}
    made |= {'difference': estimate(-below / 100, apart)}
    return {**made, 'seeds_needed': None, 'examples_needed': None, **changes}


def fresh(role: str, size: int, below: float = 0.0, verdict: str | None = 'best', **changes: Any) -> Json:
    """What six fresh seeds reach in a role; a verdict of None: none did."""
    like = row(size, below, verdict or 'best')
    made = {**like, 'role': role, 'diverged': 0, 'verdict': verdict}
    if verdict is None:
        made |= {'test_score': None, 'difference': None, 'seeds': 0, 'diverged': 6}
    return {**made, **changes}


def budget(*rows: Json, unit: str = 'epochs', amount: float = 2, **changes: Any) -> Json:
    """A budget whose recommendation is the fastest row, or in seconds the smallest, of those that are as good."""
    made: Json = {'unit': unit, 'amount': amount, 'rows': list(rows), 'missing': [], 'recommended': None}
    if rows:
        good = [each for each in rows if each['verdict'] in ('best', 'as good')]
        choices = {'memory': good[0], 'updates': good[-1], 'time': min(good, key=lambda each: each['seconds'])}
        made['choices'] = {name: each['batch_size'] for name, each in choices.items()}
        made['recommended'] = choices['memory' if unit == 'seconds' else 'time']
        made['examples_to_tell'] = 1000
    return {**made, 'fresh': [], 'first_thought': None, **changes}


def answer(*budgets: Json, **changes: Any) -> Json:
    """An answer in which everything that is common to the budgets, and is put into words, is known of four sizes."""
    made: Json = {
        'dataset': 'mnist', 'task': 'classification',
        'model': 'MLP 256-256', 'optimizer': 'sgd', 'device': 'cpu', 'margin': 0.001, 'n': 10_000,
        'schedule': {'name': 'linear', 'warm_up': 0.05}, 'budgets': list(budgets), 'numbers': {},
        'examples': {'train': 10_000, 'validation': 2000, 'test': 10_000},
        'trials': [{'batch_size': size, 'updates': 20_000 // size, 'learning_rate': rate}
                   for size in GRID for rate in (0.05, 0.1, 0.2)],
        'curves': [{'batch_size': size} for size in GRID],
        'targets': [target(0.09, estimate(55.0, 9.0)), target(0.06, estimate(60.0, 12.0))],
        'learning_rates': {
            'law': {'advice': [{'batch_size': size, **estimate(0.11, 0.03)} for size in GRID[:3]]},
            'rows': [{'batch_size': size, 'updates': 20_000 // size, **estimate(0.1, 0.02), 'edge': False}
                     for size in GRID]},
        'noise_scale': [{'batch_size': size, 'points': [{'noise_scale': estimate(70.0 + size, 9.0)}]} for size in GRID],
        'machine': [machine(size, 1e-5 * size, 0.05) for size in GRID],
        'rests_on': {'runs': 225, 'diverged': 29, 'seeds': 6},
    }  # fmt: skip
    return {**made, **changes}


def target(error: float, b_crit: Mapping[str, Any]) -> Json:
    return {'error': error, 'curve': {'b_crit': dict(b_crit)}}


def machine(size: int, seconds: float, spread: float) -> Json:
    made: Json = {'batch_size': size, 'seconds': estimate(seconds, seconds * spread / 2), 'measurements': 5}
    return {**made, 'examples_per_second': size / seconds, 'bytes': 39_393_276, 'parts': 1}


def drawn(seed: int) -> Json:
    """An answer at random, of all kinds that `find` can give."""
    rng = random.Random(seed)

    def maybe(value: Any, otherwise: Any = None) -> Any:
        return value if rng.random() < 0.7 else otherwise

    def made_budget(unit: str) -> Json:
        sizes, seeds, rows = sorted(rng.sample(GRID, rng.randint(0, 4))), rng.choice((1, 2, 6)), []
        winner = rng.choice(sizes or [0])
        for size in sizes:
            verdict = 'best' if size == winner else rng.choice(('as good', 'worse', 'undecided'))
            needed = {rng.choice(('seeds_needed', 'examples_needed')): maybe(rng.randint(7, 9000))}
            rows.append(
                row(size, 0.0 if size == winner else rng.choice((0.0004, 0.7, 90)), verdict, seeds=seeds, **needed)
            )
        found = budget(*rows, unit=unit, missing=[size for size in GRID if size not in sizes])
        first = rng.choice(('best', 'as good', 'undecided', None))
        others = ('half the rate', maybe(None if first == 'best' else 'best')), ('growing', maybe('worse'))
        for role, verdict in (('recommended', first if first in ('best', None) else others[0][1] and first), *others):
            lost = {'test_score': maybe(estimate(0.9)), 'seeds': 1, 'diverged': maybe(2, 0)} if not verdict else {}
            found['fresh'].append(fresh(role, 8, rng.random(), verdict, seconds=maybe(0.2), **lost))
        return found if rows else {**found, 'fresh': []}

    found = answer(*map(made_budget, ('epochs', 'updates', 'seconds')[: rng.randint(1, 3)]))
    b_crit = {'value': rng.choice((1.5, 55.5, None)), 'low': maybe(1.2), 'high': maybe(1e5)}
    found['targets'] = maybe([target(0.09, b_crit), target(0.05, estimate(70.0, 9.0))], [])
    found['learning_rates']['law'] = maybe(found['learning_rates']['law'])
    found['examples']['validation'] = rng.choice((50, 199, 900, 10_000))
    return {**found, 'noise_scale': maybe(found['noise_scale'], [])}
