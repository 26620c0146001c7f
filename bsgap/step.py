"""One run's training and evaluation as pure functions, and the one place where they become a cohort's.

What a run does is decided by its seed and its state alone: the order of the examples is a function of (seed, epoch).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bsgap import optimizer
from bsgap.data import Split
from bsgap.model import Model


class State(NamedTuple):
    """Everything that the future of a run depends on, and all that is saved of it."""

    params: Any
    opt_state: Any
    update: jax.Array  # int32: updates made
    grad_norm_sum: jax.Array  # float32: of the gradients' norms since the last evaluation


class Leg(NamedTuple):
    """What a segment does with one run; all traced."""

    stop: Any  # int32: of the example, in the epoch's order, at which the run's stage or the epoch ends
    hyperparameters: optimizer.Hyperparameters
    fresh: Any  # bool: the run was evaluated just before, so the sum of gradient norms starts anew


class Stretch(NamedTuple):
    """Where in the epoch a segment stands, the same for all runs of a cohort. int32 scalars, all traced."""

    offset: Any  # of the first example in the epoch's order
    updates: Any  # how many to make


class Evaluation(NamedTuple):
    """Over a whole split: the mean loss (cross-entropy, nats; float32) and the number of correct answers (int32)."""

    loss: jax.Array
    correct: jax.Array


def init(model: Model, kind: optimizer.Kind, seed: jax.Array) -> State:
    """The untrained run."""
    params = model.init(_keys(seed)[0])
    return State(params, optimizer.init(kind, params), jnp.int32(0), jnp.float32(0))


def order(seed: jax.Array, epoch: jax.Array, n: int) -> jax.Array:
    """The order in which a run sees the n training examples in an epoch: a permutation, `order_N` int32."""
    return jax.random.permutation(jax.random.fold_in(_keys(seed)[1], epoch), n)


def _keys(seed: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Two independent streams of a seed: for the initial parameters and for the order of the examples."""
    init_key, order_key = jax.random.split(jax.random.key(seed))
    return init_key, order_key


def segment(
    model: Model,
    kind: optimizer.Kind,
    batch_size: int,
    max_physical_batch: int,
    train: Split,
    stretch: Stretch,
    order_N: jax.Array,
    leg: Leg,
    state: State,
) -> State:
    """Makes `stretch.updates` updates of one run, on the examples of an epoch in `order_N`.

    A batch that crosses `leg.stop` is partial: its mean is taken over the examples before it. A batch larger than
    `max_physical_batch` is the sum of equal parts; its gradient is that of the whole to rounding.
    """
    n = len(train.labels_N)
    parts = -(-batch_size // max_physical_batch)
    part_size = -(-batch_size // parts)
    transformation = optimizer.make(kind, leg.hyperparameters)

    def loss(params: Any, index_B: jax.Array, weight_B: jax.Array) -> jax.Array:
        logits_BxK = model.apply(params, train.images_NxHxWxC[index_B])
        loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BxK, train.labels_N[index_B])
        return jnp.vdot(weight_B, loss_B)

    def update(i: jax.Array, state: State) -> State:
        within_B = jnp.arange(parts * part_size, dtype=jnp.int32)
        place_B = stretch.offset + i * batch_size + within_B
        valid_B = (within_B < batch_size) & (place_B < leg.stop)
        weight_B = valid_B / valid_B.sum()
        index_B = order_N[jnp.minimum(place_B, n - 1)]
        if parts == 1:
            grads = jax.grad(loss)(state.params, index_B, weight_B)
        else:
            grads = jax.lax.fori_loop(
                0,
                parts,
                lambda part, grads: jax.tree.map(
                    jnp.add,
                    grads,
                    jax.grad(loss)(
                        state.params,
                        jax.lax.dynamic_slice_in_dim(index_B, part * part_size, part_size),
                        jax.lax.dynamic_slice_in_dim(weight_B, part * part_size, part_size),
                    ),
                ),
                jax.tree.map(jnp.zeros_like, state.params),
            )
        # A run whose gradient overflows has diverged; all its weights say so from here on. It also makes each weight
        # wait for the whole gradient; else XLA copies the weight matrices that are still to be read.
        grad_norm = optax.tree.norm(grads)
        grads = jax.tree.map(lambda grad: jnp.where(jnp.isfinite(grad_norm), grad, jnp.nan), grads)
        updates, opt_state = transformation.update(grads, state.opt_state, state.params)
        return State(
            optax.apply_updates(state.params, updates),
            opt_state,
            state.update + 1,
            state.grad_norm_sum + grad_norm,
        )

    start = state._replace(grad_norm_sum=jnp.where(leg.fresh, 0, state.grad_norm_sum))
    return jax.lax.fori_loop(0, stretch.updates, update, start)


def evaluate(model: Model, split: Split, params: Any, max_batch: int = 2000) -> Evaluation:
    """Evaluates one run on every example of a split, in equal parts of at most `max_batch`."""
    n = len(split.labels_N)
    parts = -(-n // max_batch)
    part_size = -(-n // parts)

    def part(first: jax.Array) -> tuple[jax.Array, jax.Array]:
        place_B = first + jnp.arange(part_size)
        images_BxHxWxC, labels_B = jax.tree.map(lambda array: array[jnp.minimum(place_B, n - 1)], split)
        valid_B = place_B < n
        logits_BxK = model.apply(params, images_BxHxWxC)
        loss_B = optax.softmax_cross_entropy_with_integer_labels(logits_BxK, labels_B)
        # NaN compares as false and would count as class 0.
        correct_B = (logits_BxK.argmax(-1) == labels_B) & jnp.isfinite(loss_B)
        return jnp.where(valid_B, loss_B, 0).sum(), (valid_B & correct_B).sum()

    loss_P, correct_P = jax.lax.map(part, part_size * jnp.arange(parts))
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
