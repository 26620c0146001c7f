"""Batch normalization that knows which examples of a batch count."""

import jax
import jax.numpy as jnp
from flax import nnx

_RATE = 0.1  # η of the running statistics
_EPSILON = 1e-5  # added to a variance


class BatchNorm(nnx.Module):
    """Batch normalization (Ioffe & Szegedy 2015, arXiv:1502.03167) over groups of consecutive examples of a batch.

    With `ghost_batch` examples a group, the last of which can be smaller, it is Ghost Batch Normalization (Hoffer et
    al. 2017, arXiv:1705.08741, Algorithm 1); with 0 the whole batch is one group. In training each group is normalised
    with the mean μ and the biased variance of its valid examples (and of all positions in an image); the running
    statistics, which normalise in evaluation, then take in one group with valid examples after the other,
    r ← (1 − η) r + η s, s being μ or the unbiased variance m/(m − 1) σ² (Ioffe & Szegedy, Algorithm 2; else evaluation
    would depend on the group's size).
    """

    def __init__(self, features: int, ghost_batch: int = 0) -> None:
        self.scale = nnx.Param(jnp.ones(features))
        self.bias = nnx.Param(jnp.zeros(features))
        self.mean = nnx.BatchStat(jnp.zeros(features))
        self.var = nnx.BatchStat(jnp.ones(features))
        self.ghost_batch = ghost_batch
        self.use_running_average = False  # The name that `nnx.Module.train` and `eval` set.

    def __call__(self, x: jax.Array, mask_B: jax.Array | None = None) -> jax.Array:
        """Normalises `x` (float32, (B, F) or (B, H, W, F)); only the examples in `mask_B` (bool) count, all if None."""
        if self.use_running_average:
            return self._scaled(x, self.mean[...], self.var[...])
        batch, features = len(x), x.shape[-1]
        size = min(self.ghost_batch or batch, batch)
        groups = -(-batch // size)
        fill = groups * size - batch
        mask_B = jnp.ones(batch, bool) if mask_B is None else mask_B
        mask_GxSx1x1 = jnp.pad(mask_B, (0, fill)).reshape(groups, size, 1, 1)
        # P: the positions in an image, 1 for dense features.
        x_BxPxF = x.reshape(batch, -1, features)
        x_GxSxPxF = jnp.pad(x_BxPxF, ((0, fill), (0, 0), (0, 0))).reshape(groups, size, -1, features)

        count_Gx1 = mask_GxSx1x1.sum((1, 2)) * x_BxPxF.shape[1]

        def mean(y_GxSxPxF: jax.Array) -> jax.Array:
            return y_GxSxPxF.sum((1, 2), where=mask_GxSx1x1) / jnp.maximum(count_Gx1, 1)

        mean_GxF = mean(x_GxSxPxF)
        var_GxF = mean((x_GxSxPxF - mean_GxF[:, None, None]) ** 2)
        y_GxSxPxF = self._scaled(x_GxSxPxF, mean_GxF[:, None, None], var_GxF[:, None, None])

        seen_Gx1 = count_Gx1 > 0
        later_Gx1 = seen_Gx1.sum() - seen_Gx1.cumsum(0)
        weight_Gx1 = seen_Gx1 * _RATE * (1 - _RATE) ** later_Gx1
        kept = (1 - _RATE) ** seen_Gx1.sum()
        unbiased_GxF = var_GxF * count_Gx1 / jnp.maximum(count_Gx1 - 1, 1)
        # Not matrix products: those can be less than float32 (`jax_default_matmul_precision`).
        self.mean[...] = kept * self.mean[...] + (weight_Gx1 * mean_GxF).sum(0)
        self.var[...] = kept * self.var[...] + (weight_Gx1 * unbiased_GxF).sum(0)
        return y_GxSxPxF.reshape(groups * size, -1, features)[:batch].reshape(x.shape)

    def _scaled(self, x: jax.Array, mean: jax.Array, var: jax.Array) -> jax.Array:
        return (x - mean) * (jax.lax.rsqrt(var + _EPSILON) * self.scale[...]) + self.bias[...]
