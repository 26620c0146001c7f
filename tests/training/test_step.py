"""One run's update and evaluation: contracts 1 to 5 and 7 where they are decided, in closed form where there is one."""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bsgap import models
from bsgap.config import Architecture, Kind, schedule
from bsgap.data import Split
from bsgap.training import optimizer, step

SGD = Kind('sgd', momentum=False, nesterov=False, clip=False)
MOMENTUM = SGD._replace(momentum=True)
N = 10


@functools.cache
def counter() -> tuple[models.Model, Split]:
    """A model with one weight an example, whose gradient tells how often and with what weight each example was seen.

    The logits of example i are (w_i, 0) and its label is 1, so at w_i = 0 its loss has the slope 1/2.
    """
    examples_N = np.arange(N, dtype=np.uint8).reshape(N, 1, 1, 1)

    def predict(w_N: jax.Array, _: Any, images_BxHxWxC: jax.Array) -> jax.Array:
        w_B = w_N[images_BxHxWxC[:, 0, 0, 0]]
        return jnp.stack([w_B, jnp.zeros_like(w_B)], axis=1)

    def apply(w_N: jax.Array, seen_N: jax.Array, images_BxHxWxC: jax.Array, mask_B: jax.Array, _: Any) -> Any:
        return predict(w_N, None, images_BxHxWxC), seen_N.at[images_BxHxWxC[:, 0, 0, 0]].add(mask_B)

    def init(_: jax.Array) -> Any:
        return jnp.zeros(N), jnp.zeros(N, jnp.int32)

    return models.Model(init, apply, predict, NotImplemented), jax.device_put(Split(examples_N, np.ones(N, np.int32)))


@functools.cache
def mlp() -> tuple[models.Model, Split]:
    rng = np.random.default_rng(0)
    split = Split(rng.integers(0, 256, (N, 3, 3, 1), np.uint8), rng.integers(0, 4, N).astype(np.int32))
    architecture = Architecture('mlp', (6,), (), False, 0, ())
    return models.define(
        architecture, models.Format((3, 3, 1), 4, np.float32([0.5]), np.float32([0.25]))
    ), jax.device_put(split)


def inputs(
    rate: float = 0.1, momentum: float = 0.0, decay: float = 0.0, stop: int = N, fresh: bool = True,
    clip: float = 0.0, smoothing: float = 0.0, seed: int = 0,
) -> step.Inputs:  # fmt: skip
    hyperparameters = optimizer.Hyperparameters(*map(np.float32, (0, momentum, 0.9, 0.999, decay, clip)))
    constant = schedule.Rate(*map(np.float32, (rate, rate, False, 0, 1)))
    return step.Inputs(
        np.int32(seed), np.int32(stop), constant, hyperparameters, np.float32(smoothing), np.bool_(fresh)
    )


def window(offset: int, updates: int) -> step.Window:
    return step.Window(np.int32(offset), np.int32(updates))


init = jax.jit(step.init, static_argnums=(0, 1))
evaluate = jax.jit(step.evaluate, static_argnums=(0, 4))
segment = jax.jit(step.segment, static_argnums=(0, 1, 2, 3, 4))


@functools.cache
def order(seed: int = 0, epoch: int = 0) -> np.ndarray:
    return np.asarray(jax.jit(step.order, static_argnums=2)(seed, epoch, N))


def run(
    case: tuple[models.Model, Split], batch_size: int, updates: int, kind: Kind = SGD, physical: int = N,
    offset: int = 0, seed: int = 0, state: step.State | None = None, noise: bool = False, **of_run: Any,
) -> step.State:  # fmt: skip
    function, split = case
    state = state or init(function, kind, seed)
    parts = step.parts(batch_size, physical, 0)
    return segment(
        function, kind, batch_size, parts, noise, split, window(offset, updates), order(seed),
        inputs(**of_run), state,
    )  # fmt: skip


def test_order_is_a_permutation_and_a_function_of_seed_and_epoch() -> None:
    orders = {(seed, epoch): order(seed, epoch) for seed in range(2) for epoch in range(2)}
    for order_N in orders.values():
        assert sorted(order_N.tolist()) == list(range(N))
    assert len({tuple(order_N.tolist()) for order_N in orders.values()}) == 4
    np.testing.assert_array_equal(orders[1, 1], step.order(jnp.int32(1), jnp.int32(1), N))


@pytest.mark.parametrize('batch_size', [1, 4, N])
def test_an_epoch_shows_each_example_once_in_a_mean_over_its_own_batch(batch_size: int) -> None:
    updates = -(-N // batch_size)
    state = run(counter(), batch_size, updates)
    place = {example: i for i, example in enumerate(order().tolist())}
    size_of_batch = {example: min(batch_size, N - i // batch_size * batch_size) for example, i in place.items()}
    expected = [-0.1 * 0.5 / size_of_batch[example] for example in range(N)]
    np.testing.assert_allclose(state.params, expected, rtol=1e-6)
    np.testing.assert_array_equal(state.model_state, 1)  # what only fills the last batch is masked
    assert state.update == updates


def test_a_stage_that_ends_within_an_epoch_ends_with_a_partial_batch() -> None:
    state = run(counter(), 4, 1, offset=4, stop=7)
    order_N = order()
    assert sorted(np.flatnonzero(state.params)) == sorted(order_N[4:7])
    np.testing.assert_allclose(state.params[order_N[4]], -0.1 * 0.5 / 3, rtol=1e-6)


@pytest.mark.parametrize('cut', [1, 2, 3])
def test_segments_add_up_bit_for_bit(cut: int) -> None:
    whole = run(mlp(), 3, 4, MOMENTUM, momentum=0.9)
    half = run(mlp(), 3, cut, MOMENTUM, momentum=0.9)
    resumed = run(mlp(), 3, 4 - cut, MOMENTUM, offset=3 * cut, state=half, momentum=0.9, fresh=False)
    jax.tree.map(np.testing.assert_array_equal, whole, resumed)


@pytest.mark.parametrize(('batch_size', 'physical'), [(7, 3), (7, 1), (7, 4)])
def test_an_accumulated_batch_equals_the_whole_to_rounding(batch_size: int, physical: int) -> None:
    whole = run(mlp(), batch_size, 1)
    parts = run(mlp(), batch_size, 1, physical=physical)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), whole, parts)


def losses(params: Any) -> jax.Array:
    """Of each example, in the epoch's order."""
    function, split = mlp()
    logits_NxK = function.predict(params, {}, split.examples_N[order()])
    return -jax.nn.log_softmax(logits_NxK)[jnp.arange(N), split.labels_N[order()]]


def test_updates_are_those_of_sgd_written_out() -> None:
    """v ← m v + (g + λ w), w ← w − ε v, for two updates with every hyper-parameter in use; and the sum of ‖g‖."""
    rate, m, decay = 0.2, 0.7, 0.3
    slope = jax.jit(jax.grad(lambda w, weight_N: weight_N @ losses(w)))
    w = jax.device_get(init(mlp()[0], MOMENTUM, 0).params)
    v = jax.tree.map(np.zeros_like, w)
    norms = 0.0
    for i in range(2):
        g = jax.device_get(slope(w, (np.arange(N) // 5 == i) / np.float32(5)))
        norms += np.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(g)))
        v = jax.tree.map(lambda v, g, w: m * v + g + decay * w, v, g, w)
        w = jax.tree.map(lambda w, v: w - rate * v, w, v)
    state = run(mlp(), 5, 2, MOMENTUM, rate=rate, momentum=m, decay=decay)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-5, atol=1e-6), state.params, w)
    np.testing.assert_allclose(state.sums.grad_norm, norms, rtol=1e-5)


def test_label_smoothing_in_closed_form() -> None:
    """A model whose logits are its three weights: ∂loss/∂w = softmax(w) − ((1 − α) · shares of the labels + α/3)."""
    start_K, labels_N = np.asarray([0.3, -0.2, 0.5], np.float32), np.asarray([0, 0, 2, 0], np.int32)
    smoothing, rate = 0.3, 0.2

    def predict(w_K: Any, _: Any, images_BxHxWxC: Any) -> Any:
        return jnp.tile(w_K, (len(images_BxHxWxC), 1))

    def apply(w_K: Any, state: Any, images_BxHxWxC: Any, *_: Any) -> Any:
        return predict(w_K, state, images_BxHxWxC), state

    function = models.Model(lambda _: (start_K, {}), apply, predict, NotImplemented)
    split = Split(np.zeros((4, 1, 1, 1), np.uint8), labels_N)
    of_run = np.arange(4), inputs(rate, smoothing=smoothing, stop=4), init(function, SGD, 0)
    state = segment(function, SGD, 4, (1, 4), False, split, window(0, 1), *of_run)
    probability_K = np.exp(start_K) / np.exp(start_K).sum()
    target_K = (1 - smoothing) * np.bincount(labels_N) / 4 + smoothing / 3
    np.testing.assert_allclose(state.params, start_K - rate * (probability_K - target_K), rtol=1e-6)


def test_the_sum_of_gradient_norms_starts_anew_after_an_evaluation() -> None:
    first = run(mlp(), 5, 1)
    going_on = run(mlp(), 5, 1, offset=5, state=first, fresh=False)
    anew = run(mlp(), 5, 1, offset=5, state=first, fresh=True)
    np.testing.assert_allclose(going_on.sums.grad_norm, first.sums.grad_norm + anew.sums.grad_norm, rtol=1e-6)


@functools.cache
def slopes() -> np.ndarray:
    """The gradients of single examples at the start, in the epoch's order."""
    slopes_N = jax.jit(jax.jacrev(losses))(init(mlp()[0], SGD, 0).params)
    return np.concatenate([np.reshape(leaf, (N, -1)) for leaf in jax.tree.leaves(slopes_N)], axis=1)


@pytest.mark.parametrize('own', [True, False])
@pytest.mark.parametrize(('batch_size', 'physical'), [(4, N), (5, N), (10, 4), (7, 3)])
def test_the_noise_scale_is_estimated_from_the_parts_of_a_batch(batch_size: int, physical: int, own: bool) -> None:
    """From single examples, from two halves where the layers do not tell these, or from the parts of an accumulated
    batch; by hand from the gradients of single examples."""
    function, split = mlp()
    state = run((function._replace(per_example=own), split), batch_size, 1, physical=physical, noise=True)
    slopes_BxP = slopes()[:batch_size]
    number, size = step.parts(batch_size, physical, 0)
    cut = size if number > 1 else 1 if own else -(-batch_size // 2)
    groups = [slopes_BxP[first : first + cut] for first in range(0, batch_size, cut)]
    mean_P = slopes_BxP.mean(0)
    between = sum(len(group) * ((group.mean(0) - mean_P) ** 2).sum() for group in groups)
    variance = between / (len(groups) - 1)
    square = (mean_P**2).sum() - variance * (1 / batch_size - 1 / N)
    assert state.sums.measured == 1
    np.testing.assert_allclose(state.sums.gradient_variance, variance, rtol=1e-4)
    np.testing.assert_allclose(state.sums.gradient_square, square, rtol=1e-3)


def test_measuring_the_noise_scale_changes_no_update_beyond_rounding() -> None:
    plain, noisy = (run(mlp(), 4, 3, noise=noise) for noise in (False, True))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), plain.params, noisy.params)
    assert (plain.sums.measured, noisy.sums.measured) == (0, 3)
    function, split = mlp()
    halved = run((function._replace(per_example=False), split), 4, 3, noise=True)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), plain.params, halved.params)
    assert halved.sums.measured == 1  # of small batches every eighth is halved


def test_a_cohort_chooses_together_whether_a_batch_is_halved() -> None:
    """A choice that each run made for itself would be computed both ways under `vmap`."""
    function, split = mlp()
    function = function._replace(per_example=False)
    one = lambda *of_run: step.segment(function, SGD, 4, (1, 4), True, split, window(0, 3), *of_run)  # noqa: E731
    state = init(function, SGD, 0)
    arguments = jax.tree.map(lambda leaf: np.stack([leaf] * 2), (order(), inputs(), state))
    assert ' cond[' in str(jax.make_jaxpr(step.over_runs(one, 'vmap'))(*arguments))


def test_one_example_has_no_noise_scale_and_a_model_with_a_state_is_left_alone() -> None:
    assert run(mlp(), 1, 3, noise=True).sums.measured == 0
    assert run(counter(), 4, 3, noise=True).sums.measured == 0


@pytest.mark.parametrize('max_batch', [3, N, 100])
def test_evaluation_covers_the_whole_split(max_batch: int) -> None:
    function, split = mlp()
    params = init(function, SGD, 3).params
    logits = np.asarray(jax.jit(function.predict)(params, {}, split.examples_N), np.float64)
    log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    got = evaluate(function, split, params, {}, max_batch)
    np.testing.assert_allclose(got.loss, -log_probability[np.arange(N), split.labels_N].mean(), rtol=1e-5)
    np.testing.assert_array_equal(got.score_N, logits.argmax(1) == split.labels_N)


def test_a_run_of_nans_gets_nothing_right() -> None:
    function, split = mlp()
    params = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), init(function, SGD, 0).params)
    got = evaluate(function, split, params, {}, N)
    assert not got.score_N.any()
    assert jnp.isnan(got.loss)


def test_distance_is_the_norm_over_all_parameters() -> None:
    first = {'a': jnp.zeros((2, 2)), 'b': jnp.ones(1)}
    second = {'a': jnp.ones((2, 2)), 'b': jnp.ones(1) * (1 + 12**0.5)}
    np.testing.assert_allclose(step.distance(second, first), 4.0, rtol=1e-6)


@functools.partial(jax.jit, static_argnums=0)
def cohort(how: Literal['vmap', 'map'], *of_runs: Any) -> step.State:
    function, split = mlp()
    one = functools.partial(step.segment, function, MOMENTUM, 3, (1, 3), False, split, window(0, 4))
    return step.over_runs(one, how)(*of_runs)


@pytest.mark.parametrize('how', ['vmap', 'map'])
def test_a_run_does_not_see_its_cohort(how: Literal['vmap', 'map']) -> None:
    """Three runs that differ in everything, one of which diverges, against each of them alone."""
    fields = [inputs(0.1, 0.5, 0.0), inputs(1e30, 0.9, 0.0), inputs(0.3, 0.9, 0.1)]
    runs = [(order(seed), fields[seed], init(mlp()[0], MOMENTUM, seed)) for seed in range(3)]
    together = cohort(how, *jax.tree.map(lambda *leaves: np.stack(leaves), *runs))
    assert not np.isfinite(together.params['layers'][0]['kernel'][1]).any()
    for r in (0, 2):
        alone = cohort('map', *jax.tree.map(lambda leaf: np.asarray(leaf)[None], runs[r]))
        jax.tree.map(lambda a, b, r=r: np.testing.assert_allclose(a[r], b[0], rtol=1e-5, atol=1e-6), together, alone)


@pytest.mark.parametrize(
    ('batch_size', 'physical', 'ghost', 'expected'),
    [(7, 7, 0, (1, 7)), (60000, 4096, 0, (15, 4000)), (100, 30, 16, (7, 16)), (64, 48, 16, (2, 32)), (9, 4, 8, (2, 8))],
)
def test_parts_hold_the_batch_in_whole_ghost_batches(
    batch_size: int, physical: int, ghost: int, expected: tuple[int, int]
) -> None:
    """The last case has a ghost batch that is larger than what may be computed at once; it is not divided."""
    assert step.parts(batch_size, physical, ghost) == expected
