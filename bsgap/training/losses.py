"""Of each task: the losses and scores of examples, from a model's outputs and what it should have said."""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bsgap.errors import UserError, users_code


class Measured(NamedTuple):
    """Of B examples: `loss_B` float32, whose mean is trained on, and `score_B`, bool or float32, whose mean is told."""

    loss_B: jax.Array
    score_B: jax.Array


# `measure(outputs, targets, label_smoothing, variance)`; outputs are float32, and `variance` is that of the targets,
# which only scores depend on.
Measure = Callable[[jax.Array, jax.Array, Any, Any], Measured]


def classification(logits: jax.Array, labels: jax.Array, label_smoothing: Any, _: Any) -> Measured:
    """Cross-entropy (nats), and whether the class with the largest logit is the right one, from `logits` [B, …, K] and
    `labels` [B, …]: means over an example's labels. With label smoothing α the target is (1 − α)·one-hot + α/K (Szegedy
    et al. 2016, 1512.00567, §7)."""
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    loss += label_smoothing * (-jax.nn.log_softmax(logits).mean(-1) - loss)
    # NaN compares as false and would count as class 0.
    is_right = (logits.argmax(-1) == labels) & jnp.isfinite(loss)
    if labels.ndim == 1:
        return Measured(loss, is_right)
    within = tuple(range(1, labels.ndim))
    return Measured(loss.mean(within), is_right.mean(within))


def regression(outputs_BxK: jax.Array, targets_BxK: jax.Array, _: Any, variance_K: Any) -> Measured:
    """Squared error, mean over K targets; and 1 − that over the targets' variance, whose mean over a split is R²."""
    square_BxK = jnp.square(outputs_BxK - targets_BxK)
    score_B = 1 - (square_BxK / variance_K).mean(-1)
    return Measured(square_BxK.mean(-1), jnp.where(jnp.isfinite(score_B), score_B, 0))


def of(task: str) -> Measure:
    """By a task's name; module:function is `function(outputs, targets)`, which returns losses [B] and scores [B].

    Raises:
      UserError: there is no such function; and when it is called, if it raises or gives something else.
    """
    if task in KNOWN:
        return KNOWN[task]
    module_name, _, name = task.partition(':')
    with users_code(f'config.task: {task}', always=True):
        function = getattr(importlib.import_module(module_name), name, None)
    if not callable(function):
        raise UserError(f'config.task: {task}: {module_name} has no function {name}')

    def own(outputs: jax.Array, targets: jax.Array, *_: Any) -> Measured:
        with users_code(f'config.task: {task}', always=True):
            loss_B, score_B = map(jnp.asarray, function(outputs, targets))
        for what, array in (('losses', loss_B), ('scores', score_B)):
            if array.shape != (len(outputs),):
                needs = f'gives {what} of shape {list(array.shape)}; they must be one an example: [{len(outputs)}]'
                raise UserError(f'config.task: {task} {needs}')
        return Measured(loss_B.astype(jnp.float32), score_B.astype(jnp.float32))

    return own


KNOWN: dict[str, Measure] = {'classification': classification, 'regression': regression}
