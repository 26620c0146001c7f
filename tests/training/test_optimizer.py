"""Each optimizer against its formula written out in NumPy."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bsgap.config import Kind, fields
from bsgap.errors import UserError
from bsgap.training import optimizer

RATE, M, BETA1, BETA2 = 0.2, 0.7, 0.8, 0.95

Weights = dict[str, np.ndarray]
Rule = Callable[[np.ndarray, np.ndarray, dict[str, Any], int, float], np.ndarray]


def sgd(w: np.ndarray, g: np.ndarray, memory: dict[str, Any], t: int, decay: float) -> np.ndarray:
    """v ← m v + g + λ w, w ← w − ε v (Polyak 1964, as in Sutskever et al. 2013, eq. 1 and 2, with ε outside v)."""
    memory['v'] = M * memory.get('v', 0) + g + decay * w
    return w - RATE * memory['v']


def nesterov(w: np.ndarray, g: np.ndarray, memory: dict[str, Any], t: int, decay: float) -> np.ndarray:
    """The same v, w ← w − ε (g + λ w + m v) (Sutskever et al. 2013, eq. 3 and 4, at the point looked ahead to)."""
    memory['v'] = M * memory.get('v', 0) + g + decay * w
    return w - RATE * (g + decay * w + M * memory['v'])


def moments(g: np.ndarray, memory: dict[str, Any], t: int) -> tuple[np.ndarray, np.ndarray]:
    """m̂ and v̂ (Kingma & Ba 2015, algorithm 1)."""
    memory['m'] = BETA1 * memory.get('m', 0) + (1 - BETA1) * g
    memory['v'] = BETA2 * memory.get('v', 0) + (1 - BETA2) * g**2
    return memory['m'] / (1 - BETA1**t), memory['v'] / (1 - BETA2**t)


def adam(w: np.ndarray, g: np.ndarray, memory: dict[str, Any], t: int, decay: float) -> np.ndarray:
    """Kingma & Ba 2015, algorithm 1, on the gradient with L2 in it."""
    m, v = moments(g + decay * w, memory, t)
    return w - RATE * m / (np.sqrt(v) + 1e-8)


def adamw(w: np.ndarray, g: np.ndarray, memory: dict[str, Any], t: int, decay: float) -> np.ndarray:
    """Loshchilov & Hutter 2019, algorithm 2."""
    m, v = moments(g, memory, t)
    return w - RATE * (m / (np.sqrt(v) + 1e-8) + decay * w)


def lars(w: np.ndarray, g: np.ndarray, memory: dict[str, Any], t: int, decay: float) -> np.ndarray:
    """v ← m v + ε η ‖w‖/‖g + λ w‖ (g + λ w), w ← w − v, by layer.

    You et al. 2017, algorithm 1, with η = 0.001 and the norm of the sum in place of the sum of the norms.
    """
    u = g + decay * w
    memory['v'] = M * memory.get('v', 0) + RATE * (0.001 * np.linalg.norm(w) / np.linalg.norm(u) if w.any() else 1) * u
    return w - memory['v']


def lamb(w: np.ndarray, g: np.ndarray, memory: dict[str, Any], t: int, decay: float) -> np.ndarray:
    """You et al. 2020, algorithm 2, by layer."""
    m, v = moments(g, memory, t)
    u = m / (np.sqrt(v) + 1e-6) + decay * w
    return w - RATE * (np.linalg.norm(w) / np.linalg.norm(u) if w.any() else 1) * u


CASES = [
    (Kind('sgd', momentum=True, nesterov=False, clip=False), sgd),
    (Kind('sgd', momentum=True, nesterov=True, clip=False), nesterov),
    (Kind('adam', momentum=False, nesterov=False, clip=False), adam),
    (Kind('adamw', momentum=False, nesterov=False, clip=False), adamw),
    (Kind('lars', momentum=True, nesterov=False, clip=False), lars),
    (Kind('lamb', momentum=False, nesterov=False, clip=False), lamb),
]


def weights(seed: int) -> Weights:
    """A layer's; zero biases, as at the start, where a trust ratio is 1."""
    rng = np.random.default_rng(seed)
    return {'kernel': rng.normal(size=(3, 2)), 'bias': rng.normal(size=2) if seed else np.zeros(2)}


def two_updates(kind: Kind, decay: float, clip: float) -> Weights:
    params = jax.tree.map(jnp.float32, weights(0))
    values = optimizer.Hyperparameters(*map(jnp.float32, (RATE, M, BETA1, BETA2, decay, clip)))
    state = optimizer.init(kind, params)
    for seed in (1, 2):
        grads = jax.tree.map(jnp.float32, weights(seed))
        updates, state = optimizer.make(kind, values, optax.tree.norm(grads)).update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def written_out(rule: Rule, decay: float, clip: float) -> Weights:
    w: Weights = weights(0)
    memory: dict[str, dict[str, Any]] = {name: {} for name in w}
    for t in (1, 2):
        g = weights(t)
        norm = np.sqrt(sum((leaf**2).sum() for leaf in g.values()))
        if clip:  # Pascanu et al. 2013, algorithm 1, over all layers
            g = {name: leaf * min(1, clip / norm) for name, leaf in g.items()}
        w = {name: rule(w[name], g[name], memory[name], t, decay) for name in w}
    return w


@pytest.mark.parametrize(('kind', 'rule'), CASES)
@pytest.mark.parametrize('decay', [0.0, 0.3])
@pytest.mark.parametrize('clip', [0.0, 0.5, 100.0])
def test_two_updates_are_those_of_the_formula(kind: Kind, rule: Rule, decay: float, clip: float) -> None:
    got = two_updates(kind._replace(clip=clip > 0), decay, clip)
    for name, expected in written_out(rule, decay, clip).items():
        np.testing.assert_allclose(got[name], expected, rtol=2e-5, atol=1e-6)


def test_sgd_without_momentum_has_no_state() -> None:
    kind = Kind('sgd', momentum=False, nesterov=False, clip=False)
    assert not jax.tree.leaves(optimizer.init(kind, weights(0)))
    got = two_updates(kind, 0.0, 0.0)
    np.testing.assert_allclose(got['bias'], -RATE * (weights(1)['bias'] + weights(2)['bias']), rtol=1e-6)


@pytest.mark.parametrize(('kind', 'rule'), CASES)
def test_hyper_parameters_are_traced(kind: Kind, rule: Rule) -> None:
    """One trace for all values, and each value matters where its kind has it."""
    kind = kind._replace(clip=True)
    traces = 0

    @jax.jit
    def update(values: optimizer.Hyperparameters, state: Any, params: Any, grads: Any) -> Any:
        nonlocal traces
        traces += 1
        updates, state = optimizer.make(kind, values, optax.tree.norm(grads)).update(grads, state, params)
        return optax.apply_updates(params, updates), state

    base = optimizer.Hyperparameters(RATE, M, BETA1, BETA2, 0.1, 0.5)
    results = {}
    for field in ('', *base._fields):
        values = base._replace(**({field: 0.9 * getattr(base, field)} if field else {}))
        params = jax.tree.map(jnp.float32, weights(0))
        state = optimizer.init(kind, params)
        for seed in (1, 2):
            grads = jax.tree.map(jnp.float32, weights(seed))
            params, state = update(jax.tree.map(jnp.float32, values), state, params, grads)
        results[field] = np.asarray(params['kernel'])
    assert traces == 1
    unused = {'beta1', 'beta2'} if kind.name in ('sgd', 'lars') else {'momentum'}
    for field in base._fields:
        assert (results[field] == results['']).all() == (field in unused), field


def test_the_cases_are_all_optimizers() -> None:
    names = ', '.join(dict.fromkeys(kind.name for kind, _ in CASES))
    with pytest.raises(UserError, match=f"'sdg' is not known; it must be one of {names}$"):
        fields.RECIPE_FIELDS['optimizer'].check('optimizer', 'sdg')
    with pytest.raises(ValueError, match='unknown optimizer: sdg'):
        optimizer.init(Kind('sdg', momentum=False, nesterov=False, clip=False), weights(0))
