"""A small convolutional network."""

import itertools
from typing import Any

import jax
from flax import nnx

from bsgap.models.layers import convolution, max_pool
from bsgap.models.mlp import MLP
from bsgap.models.norm import BatchNorm


class CNN(nnx.Module):
    """A small convolutional network: 3×3 convolution – (batch normalization) – ReLU – 2×2 max pool, then the MLP.

    The convolutions' weights are He-normal (variance 2/(9 in), He et al. 2015, arXiv:1502.01852, §2.2), their biases
    zero, and absent where they are normalised. A pool leaves out the last row or column of an odd size.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        *,
        channels: tuple[int, ...],
        hidden: tuple[int, ...],
        batch_norm: bool = False,
        ghost_batch: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, depth = image_shape
        pooled = (height >> len(channels), width >> len(channels))
        if 0 in pooled:
            raise ValueError(f'images of {height}×{width} are too small for {len(channels)} 2×2 pools, one a channel')
        made: dict[str, Any] = {'kernel_init': nnx.initializers.he_normal(), 'conv_general_dilated': convolution}
        self.convolutions = nnx.List(
            nnx.Conv(i, o, (3, 3), use_bias=not batch_norm, **made, rngs=rngs)
            for i, o in itertools.pairwise((depth, *channels))
        )
        self.norms = nnx.List(BatchNorm(width, ghost_batch) for width in channels if batch_norm)
        shape = (*pooled, (depth, *channels)[-1])
        self.head = MLP(shape, classes, hidden=hidden, batch_norm=batch_norm, ghost_batch=ghost_batch, rngs=rngs)

    def __call__(self, images_BxHxWxC: jax.Array, mask_B: jax.Array | None = None) -> jax.Array:
        """Maps normalised images (float32) to `logits_BxK`; `mask_B` (bool) as in `BatchNorm`."""
        x_BxHxWxC = images_BxHxWxC
        for i, layer in enumerate(self.convolutions):
            x_BxHxWxC = layer(x_BxHxWxC)
            x_BxHxWxC = max_pool(nnx.relu(self.norms[i](x_BxHxWxC, mask_B) if self.norms else x_BxHxWxC))
        return self.head(x_BxHxWxC, mask_B)
