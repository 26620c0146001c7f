"""The model, defined with Flax NNX and trained as a pure function of its parameters."""

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx


@jax.custom_vjp
def product(x_BxI: jax.Array, w_IxO: jax.Array) -> jax.Array:
    """The matrix product of a dense layer, `y_BxO`.

    JAX's own rule makes the weight gradient as `(y′ᵀx)ᵀ`; under `vmap` XLA's CPU backend really transposes it, which
    costs more than the product where the batch is small. This rule makes it as `xᵀy′`, in the weights' own layout.
    Like every `custom_vjp` it has no forward mode: take second derivatives in reverse over reverse.
    """
    return x_BxI @ w_IxO


def _product_forward(x_BxI: jax.Array, w_IxO: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x_BxI @ w_IxO, (x_BxI, w_IxO)


def _product_backward(residuals: tuple[jax.Array, jax.Array], dy_BxO: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_BxI, w_IxO = residuals
    return dy_BxO @ w_IxO.T, x_BxI.T @ dy_BxO


product.defvjp(_product_forward, _product_backward)


def _dot_general(x: jax.Array, w: jax.Array, dimension_numbers: Any, precision: Any = None, **_: Any) -> jax.Array:
    """`product` as `nnx.Linear` takes it; the precision is the study's (`jax_default_matmul_precision`)."""
    return product(x, w)


class MLP(nnx.Module):
    """Multilayer perceptron: ReLU, Xavier-normal weights (variance 2/(in + out), Glorot & Bengio 2010), zero biases."""

    def __init__(self, inputs: int, hidden: tuple[int, ...], classes: int, *, rngs: nnx.Rngs) -> None:
        widths = (inputs, *hidden, classes)
        self.layers = nnx.List(
            nnx.Linear(i, o, kernel_init=nnx.initializers.glorot_normal(), dot_general=_dot_general, rngs=rngs)
            for i, o in itertools.pairwise(widths)
        )

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        """Maps normalised images (float32) to `logits_BxK`."""
        x_BxI = images_BxHxWxC.reshape(len(images_BxHxWxC), -1)
        for layer in list(self.layers)[:-1]:
            x_BxI = nnx.relu(layer(x_BxI))
        return self.layers[-1](x_BxI)


class Model(NamedTuple):
    """A model as pure functions: `init(key) -> params` and `apply(params, images_BxHxWxC) -> logits_BxK`."""

    init: Callable[[jax.Array], Any]
    apply: Callable[[Any, jax.Array], jax.Array]


def define(
    hidden: tuple[int, ...], image_shape: tuple[int, ...], classes: int, mean_C: np.ndarray, std_C: np.ndarray
) -> Model:
    """Makes the MLP for images of `image_shape` (H, W, C), uint8; its `apply` normalises them first."""

    def build(rngs: nnx.Rngs) -> MLP:
        height, width, channels = image_shape
        return MLP(height * width * channels, hidden, classes, rngs=rngs)

    graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(nnx.Rngs(0))))

    def init(key: jax.Array) -> Any:
        return nnx.to_pure_dict(nnx.state(build(nnx.Rngs(key))))

    def apply(params: Any, images_BxHxWxC: jax.Array) -> jax.Array:
        normalised_BxHxWxC = (images_BxHxWxC.astype(jnp.float32) / 255 - mean_C) / std_C
        return nnx.merge(graphdef, params)(normalised_BxHxWxC)

    return Model(init, apply)
