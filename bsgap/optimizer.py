"""Optimizers, from Optax, with hyper-parameters that are data."""

from typing import Any, NamedTuple

import jax
import optax


class Kind(NamedTuple):
    """What of an optimizer decides the compiled program: its name and whether it keeps a momentum buffer."""

    name: str
    momentum: bool


class Hyperparameters(NamedTuple):
    """One run's hyper-parameters for the update at hand, float32 scalars."""

    learning_rate: Any
    momentum: Any
    weight_decay: Any


def make(kind: Kind, hyperparameters: Hyperparameters) -> optax.GradientTransformation:
    """Builds the transformation. Called inside the compiled update with traced values, so that no value recompiles it.

    The shape of its state depends on `kind` alone. Weight decay is L2: λw is added to the gradient before the momentum.
    """
    rate, momentum, weight_decay = hyperparameters
    match kind.name:
        case 'sgd':
            return optax.chain(
                optax.add_decayed_weights(weight_decay), optax.sgd(rate, momentum if kind.momentum else None)
            )
    raise ValueError(f'unknown optimizer: {kind.name}')


def init(kind: Kind, params: Any) -> optax.OptState:
    """The optimizer's state before the first update."""
    return make(kind, Hyperparameters(*[jax.numpy.zeros(())] * 3)).init(params)
