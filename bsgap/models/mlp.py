"""The multilayer perceptron."""

import itertools
import math

import jax
from flax import nnx

from bsgap.models.layers import Dense
from bsgap.models.norm import BatchNorm


class MLP(nnx.Module):
    """Multilayer perceptron: ReLU, Xavier-normal weights (variance 2/(in + out), Glorot & Bengio 2010), zero biases.

    With `batch_norm` a hidden layer is dense – batch normalization – ReLU (Hoffer et al. 2017) and has no bias, which
    the normalization would take away (Ioffe & Szegedy 2015, §3.2).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int,
        *,
        hidden: tuple[int, ...],
        batch_norm: bool = False,
        ghost_batch: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        widths = (math.prod(shape), *hidden, classes)
        self.layers = nnx.List(
            Dense(i, o, use_bias=not batch_norm or layer == len(hidden), rngs=rngs)
            for layer, (i, o) in enumerate(itertools.pairwise(widths))
        )
        self.norms = nnx.List(BatchNorm(width, ghost_batch) for width in hidden if batch_norm)

    def __call__(self, x_B: jax.Array, mask_B: jax.Array | None = None) -> jax.Array:
        """Maps normalised examples (float32) to `logits_BxK`; `mask_B` (bool) as in `BatchNorm`."""
        x_BxI = x_B.reshape(len(x_B), -1)
        *hidden, last = self.layers
        for i, layer in enumerate(hidden):
            x_BxI = layer(x_BxI)
            x_BxI = nnx.relu(self.norms[i](x_BxI, mask_B) if self.norms else x_BxI)
        return last(x_BxI)
