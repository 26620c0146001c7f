"""Which figures an answer gives, and that what they show is what it says."""

import copy
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bsgap import answer_plots

SIZES = [2, 8, 32, 128, 512, 2048, 8192]
SEEDS = 3
N = 55000
S_MIN, E_MIN = 310.0, 60000.0
B_CRIT = E_MIN / S_MIN
COSTS = {size: 5e-4 + 3e-6 * size for size in SIZES}
REACHED = SIZES[:-1]


def estimate(value: float, factor: float | None = None, half: float = 0.0) -> dict[str, float | None]:
    if factor is not None:
        return {'value': value, 'low': value / factor, 'high': value * factor}
    return {'value': value, 'low': value - half or None, 'high': value + half}


def best_rate(size: int) -> float:
    return min(0.02 * size**0.5, 1.0)


def full() -> dict[str, Any]:
    """What a search over `SIZES` on MNIST may find; no run of the largest batch size reaches the target."""
    random = np.random.default_rng(0)

    def run(size: int, seed: int) -> dict[str, Any]:
        updates = float((S_MIN + E_MIN / size) * random.lognormal(0, 0.08))
        if size not in REACHED:
            return {'seed': seed, 'updates': None, 'made': 280, 'examples': None, 'seconds': None}
        reached = {'updates': updates, 'examples': size * updates, 'seconds': updates * COSTS[size]}
        return {'seed': seed, 'made': math.ceil(2 * updates), **reached}

    setting = {size: {'batch_size': size, 'learning_rate': best_rate(size), 'momentum': 0.0} for size in SIZES}

    def budget(unit: str, amount: float, updates: dict[int, float], **chosen: Any) -> dict[str, Any]:
        errors = {size: 0.017 + 0.4 / (1 + updates[size] / 90) + 0.0001 * size**0.5 for size in SIZES}
        rows = [
            {
                **setting[size],
                'updates': int(updates[size]),
                'seeds': SEEDS,
                'train_accuracy': estimate(1 - error / 3, half=error / 30),
                'validation_accuracy': estimate(1 - error, half=error / 15),
                'test_accuracy': estimate(1 - error, half=error / 15),
                'gap': estimate(error * 2 / 3, half=error / 30),
            }
            for size, error in errors.items()
        ]
        return {'unit': unit, 'amount': amount, 'rows': rows, **chosen}

    rates = [0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0]
    surface = []
    for size in SIZES:
        for rate in rates:
            off = abs(math.log(rate / best_rate(size)))
            status = 'diverged' if rate > 8 * best_rate(size) else 'stopped' if off > 1.6 else 'done'
            accuracy = None if status == 'diverged' else 1 - min(0.88, 0.02 * math.exp(off))
            cell = {'batch_size': size, 'learning_rate': rate, 'momentum': 0.0, 'updates': 3 * N // size}
            surface.append({**cell, 'validation_accuracy': accuracy, 'status': status})
    training = [
        {
            'batch_size': size,
            'learning_rate': best_rate(size),
            'points': [
                {
                    'update': int(update),
                    'examples': int(update) * size,
                    'noise_scale': estimate(
                        20 * (1 + int(update) * size / 3000) ** 0.6 * random.lognormal(0, 0.1), 1.5
                    ),
                }
                for update in np.unique(np.geomspace(1, 3 * N / size, 14).astype(int))
            ],
        }
        for size in SIZES[1:]
    ]
    trunk = [(100, 3200), (400, 12800), (1600, 51200)]
    fresh = [
        {'unit': 'epochs', **setting[size], 'role': role, 'test_accuracy': estimate(0.976, half=0.002), 'seeds': 5}
        for size, role in ((8, 'recommended'), (2, 'a quarter'), (32, 'four times'))
    ]
    grown = {'test_accuracy': estimate(0.979, half=0.001), 'winner_test_accuracy': estimate(0.978, half=0.002)}
    grown['difference'] = estimate(0.001, half=0.002)
    return {
        'dataset': 'mnist',
        'model': 'MLP 1024-1024',
        'optimizer': 'sgd',
        'n': N,
        'device': 'cpu',
        'target': {'error': 0.05, 'found': True},
        'to_target': [{**setting[size], 'runs': [run(size, seed) for seed in range(SEEDS)]} for size in SIZES],
        'curve': {'s_min': estimate(S_MIN, 1.15), 'e_min': estimate(E_MIN, 1.1), 'b_crit': estimate(B_CRIT, 1.3)},
        'learning_rate_exponent': estimate(0.48, half=0.06),
        'noise_scale': {
            'training': training,
            'exact': [
                {'batch_size': 32, 'update': u, 'examples': e, 'noise_scale': estimate(20 * (1 + e / 3000) ** 0.6, 1.3)}
                for u, e in trunk
            ],
            'branched': [
                {'batch_size': 32, 'update': u, 'examples': e, 'critical_batch': estimate(9 + e / 600, 1.8)}
                for u, e in trunk
            ],
            'predictions': [],
        },
        'seconds_per_update': {str(size): cost for size, cost in COSTS.items()},
        'budgets': [
            budget('epochs', 3.0, {s: 3 * N / s for s in SIZES}, winner=8, tied=[2, 8, 32], recommended=2),
            budget(
                'updates', 400, {s: 400.0 * s**0.3 for s in SIZES}, winner=2048, tied=[2048, 8192], recommended=8192
            ),
            budget('seconds', 12.345, {s: 12.3 / c for s, c in COSTS.items()}, winner=32, tied=[32], recommended=32),
        ],
        'surface': surface,
        'gaps': [
            {'label': label, 'points': [{'batch_size': s, 'gap': estimate(g(s), half=0.001)} for s in SIZES]}
            for label, g in (
                ('after 3 epochs, learning rate 0.01 for all', lambda s: 0.02 - 0.0025 * math.log2(s)),
                ('after 400 updates, learning rate 0.01 for all', lambda s: 0.001 + 0.0005 * math.log2(s)),
                ('after 3 epochs, tuned learning rate', lambda s: 0.02 - 0.0006 * math.log2(s)),
            )
        ],
        'grow': {
            'stages': [{'batch_size': 8, 'learning_rate': 0.05, 'examples': 4000}],
            'updates': estimate(700.0, 1.2),
            'examples': estimate(7e4, 1.2),
            'seconds': estimate(1.2, 1.2),
            'budgets': [{'unit': unit, **grown} for unit in ('epochs', 'updates', 'seconds')],
            'pays': False,
            'sentence': '',
        },
        'confirmation': {'rows': fresh, 'confirmed': True, 'sentence': ''},
        'rests_on': {'runs': 120, 'stopped': 60, 'diverged': 8, 'seeds': SEEDS, 'examples': 1.2e7, 'seconds': 900.0},
        'limits': [],
        'text': '',
    }
