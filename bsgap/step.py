"""One run's training and evaluation as pure functions, and the one place where they become a cohort's.

What a run does is decided by its seed and its state alone: the order of the examples is a function of (seed, epoch).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bsgap import optimizer, schedule
from bsgap.config import Kind
from bsgap.data import Split
from bsgap.model import Model


class State(NamedTuple):
    """Everything that the future of a run depends on, and all that is saved of it."""

    params: Any
    opt_state: Any
    model_state: Any  # of the model besides its parameters: batch normalization's running statistics
    update: jax.Array  # int32: updates made
    grad_norm_sum: jax.Array  # float32: of the gradients' norms since the last evaluation


class Leg(NamedTuple):
    """What a segment does with one run; all traced."""

    seed: Any  # int32
    stop: Any  # int32: of the example, in the epoch's order, at which the run's stage or the epoch ends
    rate: schedule.Rate
    hyperparameters: optimizer.Hyperparameters  # whose learning rate `rate` gives
    label_smoothing: Any  # float32
    fresh: Any  # bool: the run was evaluated just before, so the sum of gradient norms starts anew


class Stretch(NamedTuple):
    """Where in the epoch a segment stands, the same for all runs of a cohort. int32 scalars, all traced."""

    offset: Any  # of the first example in the epoch's order
    updates: Any  # how many to make


class Evaluation(NamedTuple):
    """Over a whole split: the mean loss (cross-entropy, nats; float32) and the number of correct answers (int32)."""

    loss: jax.Array
    correct: jax.Array


def init(model: Model, kind: Kind, seed: jax.Array) -> State:
    """The untrained run."""
    params, model_state = model.init(_keys(seed)[0])
    return State(params, optimizer.init(kind, params), model_state, jnp.int32(0), jnp.float32(0))


def order(seed: jax.Array, epoch: jax.Array, n: int) -> jax.Array:
    """The order in which a run sees the n training examples in an epoch: a permutation, `order_N` int32."""
    return jax.random.permutation(jax.random.fold_in(_keys(seed)[1], epoch), n)


def _keys(seed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two independent streams of a seed: for the initial parameters and for the order of the examples."""
    init_key, order_key = jax.random.split(jax.random.key(seed))
    return init_key, order_key


def update_key(seed: jax.Array, update: jax.Array) -> jax.Array:
    """The randomness of an update (dropout), a stream independent of the others."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), 2), update)


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
    train: Split,
    stretch: Stretch,
    order_N: jax.Array,
    leg: Leg,
    state: State,
) -> State:
    """Makes `stretch.updates` updates of one run, on the examples of an epoch in `order_N`.

    A batch that crosses `leg.stop` is partial: its mean is taken over the examples before it. A batch may be the sum of
    several `parts`; its gradient is that of the whole to rounding.
    """
    n = len(train.labels_N)
    number, size = parts

    def loss(params: Any, model_state: Any, index_B: jax.Array, weight_B: jax.Array, key: jax.Array) -> Any:
        images_BxHxWxC = train.images_NxHxWxC[index_B]
        logits_BxK, model_state = model.apply(params, model_state, images_BxHxWxC, weight_B > 0, key)
        label_B = train.labels_N[index_B]
        loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BxK, label_B)
        # Szegedy et al. 2016 (1512.00567), §7: the target is (1 − α)·one-hot + α/K.
        spread_B = -jax.nn.log_softmax(logits_BxK).mean(-1)
        loss_B += leg.label_smoothing * (spread_B - loss_B)
        return jnp.vdot(weight_B, loss_B), model_state

    def gradient(state: State, index_B: jax.Array, weight_B: jax.Array) -> tuple[Any, Any]:
        """The gradient of a batch's mean loss, and the model's state after it."""
        key = update_key(leg.seed, state.update)
        if number == 1:
            return jax.grad(loss, has_aux=True)(state.params, state.model_state, index_B, weight_B, key)

        def part(p: jax.Array, carry: tuple[Any, Any]) -> tuple[Any, Any]:
            grads, model_state = carry
            index_P, weight_P = (jax.lax.dynamic_slice_in_dim(a, p * size, size) for a in (index_B, weight_B))
            key_P = jax.random.fold_in(key, p)
            more, model_state = jax.grad(loss, has_aux=True)(state.params, model_state, index_P, weight_P, key_P)
            return jax.tree.map(jnp.add, grads, more), model_state

        return jax.lax.fori_loop(0, number, part, (jax.tree.map(jnp.zeros_like, state.params), state.model_state))

    def update(i: jax.Array, state: State) -> State:
        within_B = jnp.arange(number * size, dtype=jnp.int32)
        place_B = stretch.offset + i * batch_size + within_B
        valid_B = (within_B < batch_size) & (place_B < leg.stop)
        weight_B = valid_B / valid_B.sum()
        grads, model_state = gradient(state, order_N[jnp.minimum(place_B, n - 1)], weight_B)
        # A run whose gradient overflows has diverged; all its weights say so from here on. It also makes each weight
        # wait for the whole gradient; else XLA copies the weight matrices that are still to be read.
        grad_norm = optax.tree.norm(grads)
        grads = jax.tree.map(lambda grad: jnp.where(jnp.isfinite(grad_norm), grad, jnp.nan), grads)
        rate = schedule.learning_rate(leg.rate, state.update, jnp)
        transformation = optimizer.make(kind, leg.hyperparameters._replace(learning_rate=rate))
        updates, opt_state = transformation.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state, model_state, state.update + 1, state.grad_norm_sum + grad_norm)

    start = state._replace(grad_norm_sum=jnp.where(leg.fresh, 0, state.grad_norm_sum))
    return jax.lax.fori_loop(0, stretch.updates, update, start)


def evaluate(model: Model, split: Split, params: Any, model_state: Any, max_batch: int = 2000) -> Evaluation:
    """Evaluates one run on every example of a split, in equal parts of at most `max_batch`."""
    n = len(split.labels_N)
    parts = -(-n // max_batch)
    part_size = -(-n // parts)

    def part(first: jax.Array) -> tuple[jax.Array, jax.Array]:
        place_B = first + jnp.arange(part_size)
        images_BxHxWxC, labels_B = jax.tree.map(lambda array: array[jnp.minimum(place_B, n - 1)], split)
        valid_B = place_B < n
        logits_BxK = model.predict(params, model_state, images_BxHxWxC)
        loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BxK, labels_B)
        # NaN compares as false and would count as class 0.
        correct_B = (logits_BxK.argmax(-1) == labels_B) & jnp.isfinite(loss_B)
        return jnp.where(valid_B, loss_B, 0).sum(), (valid_B & correct_B).sum()

    # Where it is differentiated, the activations of one part are kept at a time.
    loss_P, correct_P = jax.lax.map(jax.checkpoint(part), part_size * jnp.arange(parts))
    return Evaluation(loss_P.sum() / n, correct_P.sum())


def distance(params: Any, initial: Any) -> jax.Array:
    """‖w − w₀‖ over all parameters."""
    return optax.tree.norm(jax.tree.map(jnp.subtract, params, initial))


def across_runs(function: Callable[..., Any], how: Literal['vmap', 'map']) -> Callable[..., Any]:
    """Turns a function of one run into that of a cohort, whose arguments and results have a leading axis R.

    `vmap` lets the runs share each operation, which fills an accelerator; `map` lets one run after the other use the
    whole device, which keeps its parameters in a CPU's cache (1.0 to 2 times faster there, the most at batch 2).
    """
    if how == 'vmap':
        return jax.vmap(function)
    return lambda *arguments: jax.lax.map(lambda one: function(*one), arguments)
