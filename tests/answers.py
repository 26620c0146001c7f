"""Answers of a search, made by hand: what `bsgap.analysis.answer.find` gives, for tests of words and figures."""

import random
from collections.abc import Mapping, Sequence
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
    made |= {'validation_accuracy': accuracy, 'test_accuracy': accuracy, 'train_accuracy': estimate(0.99, half_width)}
    made |= {'gap': estimate(0.02 + below / 100, half_width), 'verdict': verdict, 'seeds': 6}
    made |= {'difference': estimate(-below / 100, apart)}
    return {**made, 'seeds_needed': None, 'examples_needed': None, **changes}


def fresh(role: str, size: int, below: float = 0.0, verdict: str | None = 'best', **changes: Any) -> Json:
    """What six fresh seeds reach in a role; a verdict of None: none did."""
    like = row(size, below, verdict or 'best')
    kept = ('batch_size', 'learning_rate', 'updates', 'examples', 'seconds', 'test_accuracy', 'difference')
    made = {'role': role, **{key: like[key] for key in kept}, 'seeds': 6, 'diverged': 0, 'verdict': verdict}
    if verdict is None:
        made |= {'test_accuracy': None, 'difference': None, 'seeds': 0, 'diverged': 6}
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
    """An answer in which everything that is common to the budgets is known of four batch sizes."""
    lengths = ((100, 0.1), (200, 0.07), (400, 0.05), (800, 0.04))
    win = {'amount': 800.0, 'winner': 8, 'error': 0.05, 'low': 0.04, 'high': 0.06, 'best': [8, 32], 'among': [*GRID]}
    scale = {'updates': 800, 'examples': 6400, 'learning_rate': 0.1, 'noise_scale': estimate(70.0, 9.0)}
    made: Json = {
        'dataset': 'mnist', 'model': 'MLP 256-256', 'optimizer': 'sgd', 'device': 'cpu', 'margin': 0.001, 'n': 10_000,
        'schedule': {'name': 'linear', 'warm_up': 0.05}, 'budgets': list(budgets), 'numbers': {},
        'examples': {'train': 10_000, 'validation': 2000, 'test': 10_000},
        'trials': [
            {'batch_size': size, 'learning_rate': rate, 'momentum': 0.0, 'weight_decay': 0.0, 'beta2': 0.999,
             'updates': 20_000 // size, 'examples': 20_000, 'seconds': 1.0, 'seeds': 6, 'diverged': 0,
             'validation_error': estimate(0.03, 0.001)} for size in GRID for rate in (0.05, 0.1, 0.2)],
        'curves': [{'batch_size': size, 'points': [
            {'updates': n, 'examples': n * size, 'seconds': n / 1000, 'learning_rate': 0.1, 'error': estimate(e, 0.001)}
            for n, e in lengths]} for size in GRID],
        'winners': {unit: [win] for unit in ('examples', 'updates', 'seconds')},
        'targets': [target(0.09, estimate(55.0, 9.0)), target(0.06, estimate(60.0, 12.0))],
        'learning_rates': {'law': law('power'), 'rows': [
            {'batch_size': size, 'updates': 20_000 // size, **estimate(0.1, 0.02), 'tried': 3, 'edge': False}
            for size in GRID]},
        'noise_scale': [{'batch_size': 32, 'points': [scale]}],
        'machine': [machine(size, 1e-5 * size, 0.05) for size in GRID],
        'rests_on': {'runs': 225, 'diverged': 29, 'seeds': 6, 'fresh_seeds': 6, 'examples': 2_789_256, 'seconds': 240.},
    }  # fmt: skip
    return {**made, **changes}


def target(error: float, b_crit: Mapping[str, Any]) -> Json:
    points = [{'batch_size': size, 'updates': estimate(50 + 3000 / size, 5.0), 'censored': 0} for size in GRID]
    curve = {'s_min': estimate(50.0, 5.0), 'e_min': estimate(3000.0, 200.0), 'b_crit': dict(b_crit)}
    return {'error': error, 'found': True, 'points': points, 'curve': curve}


def law(better: str, sizes: Sequence[int] = GRID) -> Json:
    advice = [{'batch_size': size, **estimate(0.11, 0.03)} for size in sizes]
    made = {'maximum': estimate(0.48, 0.1), 'b_0': estimate(30.0, 9.0), 'exponent': estimate(0.35, 0.1)}
    return {**made, 'better': better, 'left_out': {}, 'between': [sizes[0], sizes[-1]], 'advice': advice}


def machine(size: int, seconds: float, spread: float) -> Json:
    time = estimate(seconds, seconds * spread / 2)
    return {'batch_size': size, 'seconds': time, 'examples_per_second': size / seconds, 'bytes': 39_393_276}


def drawn(seed: int) -> Json:
    """An answer at random, of all kinds that `find` can give."""
    rng = random.Random(seed)

    def maybe(value: Any, otherwise: Any = None) -> Any:
        return value if rng.random() < 0.7 else otherwise

    def made_budget(unit: str) -> Json:
        below = {'best': (0.0,), 'as good': (0.0, 0.05), 'worse': (0.7, 20.0, 90.0), 'undecided': (0.0004, 0.7)}
        sizes, seeds = sorted(rng.sample(GRID, rng.randint(0, 4))), rng.choice((1, 2, 6))
        winner, rows = rng.choice(sizes or [0]), []
        for size in sizes:
            verdict = 'best' if size == winner else rng.choice(('as good', 'worse', 'undecided'))
            needed = {rng.choice(('seeds_needed', 'examples_needed')): maybe(rng.randint(7, 9000))}
            rows.append(row(size, rng.choice(below[verdict]), verdict, seeds=seeds, **needed))
        found = budget(*rows, unit=unit, missing=[size for size in GRID if size not in sizes])
        for role, rate in {'recommended': 0.1, 'half the rate': 0.05, 'growing': 0.1}.items() if rows else ():
            verdict = maybe(rng.choice(('best', 'as good', 'undecided')))
            more = {'seconds': maybe(0.2), 'learning_rate': rate}
            found['fresh'].append(fresh(role, found['recommended']['batch_size'], rng.random(), verdict, **more))
        return found

    ends = {'low': maybe(rng.uniform(0.1, 50.0)), 'high': maybe(rng.uniform(60.0, 1e5))}
    found = answer(*(made_budget(unit) for unit in rng.sample(('epochs', 'updates', 'seconds'), rng.randint(1, 3))))
    found['targets'] = maybe([target(0.09, {'value': maybe(55.5), **ends}), target(0.05, estimate(70.0, 9.0))], [])
    found['learning_rates']['law'] = maybe(law(rng.choice(('power', 'saturating'))))
    found['learning_rates']['rows'][0]['edge'] = maybe(True, False)
    found['machine'] = maybe([machine(size, 1e-5 * size, rng.uniform(0.0, 0.5)) for size in GRID], [])
    found['examples']['validation'] = rng.choice((50, 199, 900, 10_000))
    return {**found, 'noise_scale': maybe(found['noise_scale'], [])}
