"""One run's training and evaluation as pure functions of its seed and its state, and where they become a cohort's."""

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bsgap import models
from bsgap.config import Kind, schedule
from bsgap.data import Split
from bsgap.models import Model
from bsgap.training import noise, optimizer
from bsgap.training.losses import Measure, classification

EVALUATED = 2000  # examples at once, at most


class Sums(NamedTuple):
    """Over the updates since the last evaluation; float32."""

    grad_norm: Any  # of the gradients
    gradient_square: Any  # estimates of ‖G‖² and of tr Σ, and how many there are
    gradient_variance: Any
    measured: Any


class State(NamedTuple):
    """Everything that the future of a run depends on, and all that is saved of it."""

    params: Any
    opt_state: Any
    model_state: Any  # of the model besides its parameters: batch normalization's running statistics
    update: jax.Array  # int32: updates made
    sums: Sums


class Inputs(NamedTuple):
    """What a segment is told of one run; all traced."""

    seed: Any  # int32
    stop: Any  # int32: of the example, in the epoch's order, at which the run's stage or the epoch ends
    rate: schedule.Rate
    hyperparameters: optimizer.Hyperparameters  # whose learning rate `rate` gives
    label_smoothing: Any  # float32
    fresh: Any  # bool: the run was evaluated just before, so the sums start anew


class Window(NamedTuple):
    """Where in the epoch a segment stands, the same for all runs of a cohort. int32 scalars, all traced."""

    offset: Any  # of the first example in the epoch's order
    updates: Any  # how many to make


class Evaluation(NamedTuple):
    """Over a whole split: the mean loss (float32), and each example's score (bool or float32), see `losses`."""

    loss: jax.Array
    score_N: jax.Array


@contextlib.contextmanager
def numerics(precision: str) -> Iterator[None]:
    """What all is computed with, in a thread: a precision of matrix products, and 32 bits, whatever JAX was told."""
    with jax.default_matmul_precision(precision), jax.enable_x64(False):
        yield


def init(model: Model, kind: Kind, seed: jax.Array) -> State:
    """The untrained run."""
    params, model_state = model.init(_keys(seed)[0])
    return State(params, optimizer.init(kind, params), model_state, jnp.int32(0), Sums(*[jnp.float32(0)] * 4))


def order(seed: jax.Array, epoch: jax.Array, n: int) -> jax.Array:
    """The order in which a run sees the n training examples in an epoch: a permutation, `order_N` int32."""
    return jax.random.permutation(jax.random.fold_in(_keys(seed)[1], epoch), n)


def _keys(seed: jax.Array) -> jax.Array:
    """Two independent streams of a seed: for the initial parameters and for the order of the examples."""
    return jax.random.split(jax.random.key(seed))


def parts(batch_size: int, max_physical_batch: int, ghost_batch: int) -> tuple[int, int]:
    """In how many parts of which size a batch is computed; whole ghost batches if there are some."""
    if batch_size <= max_physical_batch:
        return 1, batch_size
    whole = ghost_batch or 1
    number = -(-batch_size // max(whole, max_physical_batch // whole * whole))
    return number, -(-batch_size // (number * whole)) * whole


def segment(
    model: Model,
    kind: Kind,
    batch_size: int,
    parts: tuple[int, int],
    measure_noise: bool,
    train: Split,
    window: Window,
    order_N: jax.Array,
    inputs: Inputs,
    state: State,
    measure: Measure = classification,
) -> State:
    """Makes `window.updates` updates of one run, on the examples of an epoch in `order_N`.

    A batch that crosses `inputs.stop` is partial: its mean is taken over the examples before it. A batch may be the
    sum of several `parts`; its gradient is that of the whole to rounding. With `measure_noise` the squared norms of
    gradients are summed up, of which the noise scale is estimated: of single examples, if the layers report them; else
    of the parts; else of the two halves into which a batch is split every few updates.
    """
    n = len(train.labels_N)
    number, size = parts
    half = -(-size // 2)
    # A batch is halved every so many updates: the halves of a small one cost much more than the whole (2 times at batch
    # size 8 on a CPU), those of a large one nothing.
    halve_every = min(8, max(1, 512 // batch_size))

    @functools.partial(jax.grad, argnums=(0, 1), has_aux=True)
    def slope(params: Any, probes: Any, model_state: Any, index_B: Any, weight_B: Any, key: jax.Array) -> Any:
        """Of a weighted sum of losses, by the parameters and the probes; and the model's state after it."""
        examples_B = train.examples_N[index_B]
        told = (probes,) if probes else ()
        outputs_B, model_state = model.apply(params, model_state, examples_B, weight_B > 0, key, *told)
        loss_B, _ = measure(outputs_B, train.labels_N[index_B], inputs.label_smoothing, 1.0)
        return jnp.vdot(weight_B, loss_B), model_state

    def gradient(state: State, index_B: jax.Array, weight_B: jax.Array, halve: jax.Array) -> tuple[Any, ...]:
        """The gradient of a batch's mean loss, the model's state after it, the gradient's squared norm, and, of parts
        whose gradients are known apart, their shares of the batch's examples and the squared norms of their shares."""
        # The randomness of an update (dropout), a stream independent of `_keys`.
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(inputs.seed), 2), state.update)

        def part(p: Any, first: Any, size: int, model_state: Any) -> tuple[Any, Any, jax.Array]:
            index_P, weight_P = (jax.lax.dynamic_slice_in_dim(a, first, size) for a in (index_B, weight_B))
            key_P = jax.random.fold_in(key, p)
            (grads, _), model_state = slope(state.params, {}, model_state, index_P, weight_P, key_P)
            return optimizer.in_float32(grads), model_state, weight_P.sum()

        def whole() -> tuple[Any, ...]:
            each = len(index_B) if measure_noise and model.per_example else 0
            probes = model.probes(each)
            (grads, told), model_state = slope(state.params, probes, state.model_state, index_B, weight_B, key)
            grads = optimizer.in_float32(grads)
            square = optax.tree.norm(models.untold(probes, grads), squared=True)
            told = sum(jax.tree.leaves(told), jnp.zeros(1 + each))
            shares = (weight_B, told[1:]) if each else (jnp.zeros(2), jnp.zeros(2))
            return grads, model_state, square + told[0], *shares

        def halves() -> tuple[Any, ...]:
            first, model_state, share = part(0, 0, half, state.model_state)
            second, model_state, other = part(1, half, size - half, model_state)
            squares = [optax.tree.norm(grads, squared=True) for grads in (first, second)]
            grads = jax.tree.map(jnp.add, first, second)
            square = optax.tree.norm(grads, squared=True)
            return grads, model_state, square, jnp.stack([share, other]), jnp.stack(squares)

        def add(p: jax.Array, carry: tuple[Any, ...]) -> tuple[Any, ...]:
            grads, model_state, share_P, square_P = carry
            more, model_state, share = part(p, p * size, size, model_state)
            if measure_noise:
                share_P, square_P = share_P.at[p].set(share), square_P.at[p].set(optax.tree.norm(more, squared=True))
            return jax.tree.map(jnp.add, grads, more), model_state, share_P, square_P

        if number > 1:
            zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), state.params)
            begin = zeros, state.model_state, jnp.zeros(number), jnp.zeros(number)
            grads, model_state, share_P, square_P = jax.lax.fori_loop(0, number, add, begin)
            return grads, model_state, optax.tree.norm(grads, squared=True), share_P, square_P
        # A model with a state, such as batch normalization's, would see the halves.
        if not measure_noise or size == 1 or model.per_example or jax.tree.leaves(state.model_state):
            return whole()
        return halves() if halve_every == 1 else jax.lax.cond(halve, halves, whole)

    def update(i: jax.Array, state: State) -> State:
        within_B = jnp.arange(number * size, dtype=jnp.int32)
        place_B = window.offset + i * batch_size + within_B
        valid_B = (within_B < batch_size) & (place_B < inputs.stop)
        weight_B = valid_B / valid_B.sum()
        halve = (place_B[0] // batch_size) % halve_every == 0  # no run's own, so that `vmap` keeps a choice
        index_B = order_N[jnp.minimum(place_B, n - 1)]
        grads, model_state, square, share_P, square_P = gradient(state, index_B, weight_B, halve)
        # A run whose gradient overflows has diverged; all its weights say so from here on.
        grads = jax.tree.map(lambda grad: jnp.where(jnp.isfinite(square), grad, jnp.nan), grads)
        grad_norm, rate = jnp.sqrt(square), schedule.learning_rate(inputs.rate, state.update, jnp)
        transformation = optimizer.make(kind, inputs.hyperparameters._replace(learning_rate=rate), grad_norm)
        exact = optimizer.in_float32(state.params)
        updates, opt_state = transformation.update(grads, state.opt_state, exact)
        params = jax.tree.map(lambda new, old: new.astype(old.dtype), optax.apply_updates(exact, updates), state.params)
        mean_square_P = square_P / jnp.square(jnp.where(share_P > 0, share_P, 1))  # of a part's own mean
        parts_noise = noise.from_parts(share_P * valid_B.sum(), mean_square_P, square, n)
        sums = jax.tree.map(jnp.add, state.sums, Sums(grad_norm, *parts_noise))
        return State(params, opt_state, model_state, state.update + 1, sums)

    start = state._replace(sums=jax.tree.map(lambda total: jnp.where(inputs.fresh, 0, total), state.sums))
    return jax.lax.fori_loop(0, window.updates, update, start)


def evaluate(
    model: Model, split: Split, params: Any, model_state: Any, most: int = EVALUATED, measure: Measure = classification
) -> Evaluation:
    """Evaluates one run on every example of a split, in equal parts of at most `most`."""
    n, variance = len(split.labels_N), jnp.var(split.labels_N.astype(jnp.float32), axis=0)
    variance = jnp.where(variance > 0, variance, 1)
    parts = -(-n // most)
    part_size = -(-n // parts)

    def part(first: jax.Array) -> tuple[jax.Array, jax.Array]:
        place_B = first + jnp.arange(part_size)
        examples_B, labels_B = jax.tree.map(lambda array: array[jnp.minimum(place_B, n - 1)], split)
        valid_B = place_B < n
        loss_B, score_B = measure(model.predict(params, model_state, examples_B), labels_B, 0.0, variance)
        return jnp.where(valid_B, loss_B, 0).sum(), score_B

    # Where it is differentiated, the activations of one part are kept at a time.
    loss_P, score_PxB = jax.lax.map(jax.checkpoint(part), part_size * jnp.arange(parts))
    return Evaluation(loss_P.sum() / n, score_PxB.ravel()[:n])


def distance(params: Any, initial: Any) -> jax.Array:
    """‖w − w₀‖ over all parameters, float32."""
    return optax.tree.norm(jax.tree.map(jnp.subtract, *map(optimizer.in_float32, (params, initial))))


def over_runs(function: Callable[..., Any], how: Literal['vmap', 'map']) -> Callable[..., Any]:
    """Turns a function of one run into that of a cohort, whose arguments and results have a leading axis R: `vmap` lets
    the runs share each operation, which fills an accelerator; `map` lets one after the other use the whole device and
    keep its parameters in a CPU's cache (1.0 to 2 times faster there, the most at batch 2)."""
    if how == 'vmap':
        return jax.vmap(function)
    return lambda *arguments: jax.lax.map(lambda one: function(*one), arguments)
