"""Optimizers, from Optax, with hyper-parameters that are data."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from bsgap.config import Kind


class Hyperparameters(NamedTuple):
    """One run's hyper-parameters for the update at hand, float32 scalars."""

    learning_rate: Any
    momentum: Any
    beta1: Any
    beta2: Any
    weight_decay: Any
    clip: Any


def make(kind: Kind, hyperparameters: Hyperparameters, norm: jax.Array) -> optax.GradientTransformation:
    """Builds the transformation of a gradient with that norm, inside the compiled update: its state's shape depends on
    `kind` alone, so that no value recompiles it.

    Clipping comes first (Pascanu et al. 2013). Weight decay is L2 in sgd and adam, where λw is added to the gradient;
    decoupled in adamw (Loshchilov & Hutter 2019); in lars and lamb a part of what the trust ratio scales (You et al.
    2017 and 2020).
    """
    rate, momentum, beta1, beta2, weight_decay, clip = hyperparameters
    clipped = optax.stateless(lambda grads, _: optax.tree.scale(jnp.where(norm < clip, 1, clip / norm), grads))
    steps = [clipped] if kind.clip else []
    match kind.name:
        case 'sgd':
            steps.append(optax.add_decayed_weights(weight_decay))
            steps.append(optax.sgd(rate, momentum if kind.momentum else None, kind.nesterov))
        case 'adam':
            steps.append(optax.add_decayed_weights(weight_decay))
            steps.append(optax.adam(rate, beta1, beta2))
        case 'adamw':
            steps.append(optax.adamw(rate, beta1, beta2, weight_decay=weight_decay))
        case 'lars':
            steps.append(optax.lars(rate, weight_decay, momentum=momentum, nesterov=kind.nesterov))
        case 'lamb':
            steps.append(optax.lamb(rate, beta1, beta2, weight_decay=weight_decay))
        case _:
            raise ValueError(f'unknown optimizer: {kind.name}')
    return optax.chain(*steps)


def init(kind: Kind, params: Any) -> optax.OptState:
    """The optimizer's state before the first update."""
    zeros = Hyperparameters(*[jnp.float32(0)] * len(Hyperparameters._fields))
    return make(kind, zeros, jnp.float32(0)).init(in_float32(params))


def in_float32(tree: Any) -> Any:
    """Updates are made in float32: steps are often too small for the 8 bits of bfloat16."""
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float32), tree)
