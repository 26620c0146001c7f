"""The models, defined with Flax NNX and trained as pure functions of their parameters and state."""

import importlib
import inspect
import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bsgap.config import Architecture


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


def convolution(x_BxHxWxI: jax.Array, w_3x3xIxO: jax.Array, *_: Any, **__: Any) -> jax.Array:
    """The 3×3 convolution with stride 1 and padding `SAME`, as `nnx.Conv` takes it: `y_BxHxWxO`.

    XLA's CPU backend makes convolutions inside a loop, which all training here is, 2 to 40 times slower than outside
    (36 ms an example's gradient at 32 and 64 channels and batch size 512); as the matrix product of each pixel's nine
    neighbours it takes 0.9. Elsewhere XLA's own is used.
    """
    if jax.default_backend() != 'cpu':
        return jax.lax.conv_general_dilated(
            x_BxHxWxI, w_3x3xIxO, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC')
        )
    height, width = x_BxHxWxI.shape[1:3]
    padded = jnp.pad(x_BxHxWxI, ((0, 0), (1, 1), (1, 1), (0, 0)))
    neighbours = [padded[:, i : i + height, j : j + width] for i, j in itertools.product(range(3), repeat=2)]
    return jnp.concatenate(neighbours, -1) @ w_3x3xIxO.reshape(-1, w_3x3xIxO.shape[-1])


_RATE = 0.1  # η of the running statistics
_EPSILON = 1e-5  # added to a variance


class BatchNorm(nnx.Module):
    """Batch normalization (Ioffe & Szegedy 2015, arXiv:1502.03167) over groups of consecutive examples of a batch.

    With `ghost_batch` examples a group it is Ghost Batch Normalization (Hoffer et al. 2017, arXiv:1705.08741,
    Algorithm 1); with 0 the whole batch is one group. The last group can be smaller. In training each group is
    normalised with the mean μ and the biased variance of its own valid examples (and of all positions in an image);
    the running statistics then take in one group after the other, r ← (1 − η) r + η s with η = 0.1, s being μ or the
    unbiased variance m/(m − 1) σ² (Ioffe & Szegedy, Algorithm 2; else evaluation would depend on the group's size).
    A group without a valid example leaves them alone. In evaluation the running statistics normalise.
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


class MLP(nnx.Module):
    """Multilayer perceptron: ReLU, Xavier-normal weights (variance 2/(in + out), Glorot & Bengio 2010), zero biases.

    With `batch_norm` a hidden layer is dense – batch normalization – ReLU (Hoffer et al. 2017) and has no bias, which
    the normalization would take away (Ioffe & Szegedy 2015, §3.2).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        classes: int,
        *,
        hidden: tuple[int, ...],
        batch_norm: bool = False,
        ghost_batch: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        widths = (math.prod(image_shape), *hidden, classes)
        self.layers = nnx.List(
            nnx.Linear(
                i,
                o,
                use_bias=not batch_norm or layer == len(hidden),
                kernel_init=nnx.initializers.glorot_normal(),
                dot_general=_dot_general,
                rngs=rngs,
            )
            for layer, (i, o) in enumerate(itertools.pairwise(widths))
        )
        self.norms = nnx.List(BatchNorm(width, ghost_batch) for width in hidden if batch_norm)

    def __call__(self, images_BxHxWxC: jax.Array, mask_B: jax.Array | None = None) -> jax.Array:
        """Maps normalised images (float32) to `logits_BxK`; `mask_B` (bool) as in `BatchNorm`."""
        x_BxI = images_BxHxWxC.reshape(len(images_BxHxWxC), -1)
        *hidden, last = self.layers
        for i, layer in enumerate(hidden):
            x_BxI = layer(x_BxI)
            x_BxI = nnx.relu(self.norms[i](x_BxI, mask_B) if self.norms else x_BxI)
        return last(x_BxI)


def _pool(x_BxHxWxC: jax.Array) -> jax.Array:
    """2×2 max pool.

    By selection: the scatter in the gradient of `nnx.max_pool` makes the CNN 3 times slower on a CPU, and the gradients
    of `max` and `maximum` compare each value with the maximum, which goes wrong if XLA computes the value anew with
    another rounding (seen with `max` after batch normalization).
    """
    height, width = x_BxHxWxC.shape[1] // 2 * 2, x_BxHxWxC.shape[2] // 2 * 2
    upper, lower = x_BxHxWxC[:, 0:height:2, :width], x_BxHxWxC[:, 1:height:2, :width]
    x_BxHxWxC = jnp.where(upper < lower, lower, upper)
    left, right = x_BxHxWxC[:, :, 0::2], x_BxHxWxC[:, :, 1::2]
    return jnp.where(left < right, right, left)


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
        self.convolutions = nnx.List(
            nnx.Conv(
                *(i, o, (3, 3)),
                use_bias=not batch_norm,
                kernel_init=nnx.initializers.he_normal(),
                conv_general_dilated=convolution,
                rngs=rngs,
            )
            for i, o in itertools.pairwise((depth, *channels))
        )
        self.norms = nnx.List(BatchNorm(width, ghost_batch) for width in channels if batch_norm)
        shape = (*pooled, (depth, *channels)[-1])
        self.head = MLP(shape, classes, hidden=hidden, batch_norm=batch_norm, ghost_batch=ghost_batch, rngs=rngs)

    def __call__(self, images_BxHxWxC: jax.Array, mask_B: jax.Array | None = None) -> jax.Array:
        """Maps normalised images (float32) to `logits_BxK`; `mask_B` (bool) as in `BatchNorm`."""
        x_BxHxWxC = images_BxHxWxC
        for i, convolution in enumerate(self.convolutions):
            x_BxHxWxC = convolution(x_BxHxWxC)
            x_BxHxWxC = nnx.relu(self.norms[i](x_BxHxWxC, mask_B) if self.norms else x_BxHxWxC)
            x_BxHxWxC = _pool(x_BxHxWxC)
        return self.head(x_BxHxWxC, mask_B)


class Model(NamedTuple):
    """A model as pure functions of its parameters and its state, which are nested dicts of arrays.

    `model_state` holds what a forward pass in training changes, as batch normalization's running statistics; `{}` if
    there is none. Images are uint8, logits float32. The examples that are not in `mask_B` (bool) only fill a batch.

    init: `init(key) -> (params, model_state)`.
    apply: for training, `apply(params, model_state, images_BxHxWxC, mask_B, key) -> (logits_BxK, model_state)`.
    predict: for evaluation, `predict(params, model_state, images_BxHxWxC) -> logits_BxK`.
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    apply: Callable[..., tuple[jax.Array, Any]]
    predict: Callable[..., jax.Array]


def define(
    architecture: Architecture, image_shape: tuple[int, int, int], classes: int, mean_C: np.ndarray, std_C: np.ndarray
) -> Model:
    """Makes a model for images of `image_shape` (H, W, C), uint8, which it first normalises to (x/255 − mean)/std.

    A model of the user's own is any `nnx.Module` that is made as `Class(image_shape, classes, **arguments, rngs=rngs)`
    and called as `module(images_BxHxWxC)`, or `module(images_BxHxWxC, mask_B=mask_B)` if its `__call__` has a parameter
    of that name: the mask in training, None in evaluation. Its mode is set by NNX's `train()` and `eval()`, which
    dropout and `nnx.BatchNorm` obey (`nnx.BatchNorm` counts the examples that only fill a batch unless the module hands
    it a mask). Its random streams start anew from `key` in each `apply`, and are not part of the state.

    Raises:
        ValueError: no such model, or it does not take its arguments, or does not give `logits_BxK`.
    """
    module_class, arguments = _find(architecture)
    masked = 'mask_B' in inspect.signature(module_class.__call__).parameters

    def build(key: jax.Array) -> nnx.Module:
        return module_class(image_shape, classes, **arguments, rngs=nnx.Rngs(key))

    def split(module: nnx.Module) -> list[Any]:
        _, *states = nnx.split(module, nnx.Param, nnx.RngState, ...)
        return [nnx.to_pure_dict(state) for state in states]

    abstract_key = jax.eval_shape(jax.random.key, 0)
    try:
        abstract_module = nnx.eval_shape(build, abstract_key)
    except TypeError as error:
        raise ValueError(f'model {architecture.model} refuses its arguments: {error}') from error
    graphdef = nnx.graphdef(abstract_module)
    streams, streams_tree = jax.tree.flatten(split(abstract_module)[1])

    def merge(params: Any, model_state: Any, key: jax.Array) -> Any:
        rng_state = [
            jax.random.split(jax.random.fold_in(key, i), stream.shape)
            if jnp.issubdtype(stream.dtype, jax.dtypes.prng_key)
            else jnp.zeros(stream.shape, stream.dtype)
            for i, stream in enumerate(streams)
        ]
        return nnx.merge(graphdef, params, model_state, jax.tree.unflatten(streams_tree, rng_state))

    def call(module: Any, images_BxHxWxC: jax.Array, mask_B: jax.Array | None) -> jax.Array:
        normalised_BxHxWxC = (images_BxHxWxC.astype(jnp.float32) / 255 - mean_C) / std_C
        return module(normalised_BxHxWxC, mask_B=mask_B) if masked else module(normalised_BxHxWxC)

    def init(key: jax.Array) -> tuple[Any, Any]:
        params, _, model_state = split(build(key))
        return params, model_state

    def apply(
        params: Any, model_state: Any, images_BxHxWxC: jax.Array, mask_B: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        module = merge(params, model_state, key)
        module.train()
        logits_BxK = call(module, images_BxHxWxC, mask_B)
        return logits_BxK, split(module)[2]

    def predict(params: Any, model_state: Any, images_BxHxWxC: jax.Array) -> jax.Array:
        module = merge(params, model_state, jax.random.key(0))
        module.eval()
        return call(module, images_BxHxWxC, None)

    # One more example than classes, so that a transposed result is seen.
    images = jax.ShapeDtypeStruct((classes + 1, *image_shape), jnp.uint8)
    mask = jax.ShapeDtypeStruct((classes + 1,), bool)
    params, model_state = jax.eval_shape(init, abstract_key)
    logits, new_state = jax.eval_shape(apply, params, model_state, images, mask, abstract_key)
    for result in (logits, jax.eval_shape(predict, params, model_state, images)):
        if getattr(result, 'shape', None) != (classes + 1, classes):
            raise ValueError(
                f'model {architecture.model} maps {classes + 1} images to {result}, not to logits of shape '
                f'{(classes + 1, classes)}'
            )
    if new_state != model_state:
        raise ValueError(f'model {architecture.model} changes the shape of its own state in a call')
    return Model(init, apply, predict)


def _find(architecture: Architecture) -> tuple[type[Any], dict[str, Any]]:
    """The class of a model and its keyword arguments."""
    name, hidden, channels, batch_norm, ghost_batch, arguments = architecture
    dense = {'hidden': hidden, 'batch_norm': batch_norm, 'ghost_batch': ghost_batch}
    if name == 'mlp':
        return MLP, dense
    if name == 'cnn':
        return CNN, {'channels': channels, **dense}
    module_name, colon, class_name = name.partition(':')
    if not colon:
        raise ValueError(f'no model {name!r}: mlp, cnn or module:Class')
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        raise ValueError(f'model {name}: cannot import {module_name}: {error}') from error
    found = getattr(module, class_name, None)
    if found is None:
        raise ValueError(f'model {name}: {module_name} has no {class_name}')
    if not (isinstance(found, type) and issubclass(found, nnx.Module)):
        raise ValueError(f'model {name}: {class_name} is not an nnx.Module')
    return found, dict(arguments)
