"""Any Flax NNX module as pure functions of its parameters and its state."""

import importlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bsgap.config import Architecture
from bsgap.models.cnn import CNN
from bsgap.models.mlp import MLP


class Model(NamedTuple):
    """A model as pure functions of its parameters and its state, which are nested dicts of arrays.

    `model_state` holds what a forward pass in training changes, as batch normalization's running statistics; `{}` if
    there is none. Images are uint8, logits float32. The examples that are not in `mask_B` (bool) only fill a batch.

    init: `init(key) -> (params, model_state)`.
    apply: for training, `apply(params, model_state, images_BxHxWxC, mask_B, key) -> (logits_BxK, model_state)`.
    predict: for evaluation, `predict(params, model_state, images_BxHxWxC) -> logits_BxK`.
    module: for use, `module(params, model_state)` is an NNX module that does the same: `module(images_BxHxWxC)`.
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    apply: Callable[..., tuple[jax.Array, Any]]
    predict: Callable[..., jax.Array]
    module: Callable[[Any, Any], 'Classifier']


class Classifier(nnx.Module):
    """A module together with its normalisation, from uint8 images to float32 logits."""

    def __init__(self, module: nnx.Module, mean_C: np.ndarray, std_C: np.ndarray, masked: bool) -> None:
        self.module, self.masked = module, masked
        self.mean_C, self.std_C = nnx.Variable(jnp.asarray(mean_C)), nnx.Variable(jnp.asarray(std_C))

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        """Gives `logits_BxK`."""
        return _call(self.module, jnp.asarray(images_BxHxWxC), self.mean_C[...], self.std_C[...], self.masked)


def _call(module: Any, images_BxHxWxC: jax.Array, mean_C: Any, std_C: Any, masked: bool, mask_B: Any = None) -> Any:
    normalised_BxHxWxC = (images_BxHxWxC.astype(jnp.float32) / 255 - mean_C) / std_C
    return module(normalised_BxHxWxC, mask_B=mask_B) if masked else module(normalised_BxHxWxC)


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

    def init(key: jax.Array) -> tuple[Any, Any]:
        params, _, model_state = split(build(key))
        return params, model_state

    def apply(
        params: Any, model_state: Any, images_BxHxWxC: jax.Array, mask_B: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        module = merge(params, model_state, key)
        module.train()
        logits_BxK = _call(module, images_BxHxWxC, mean_C, std_C, masked, mask_B)
        return logits_BxK, split(module)[2]

    def predict(params: Any, model_state: Any, images_BxHxWxC: jax.Array) -> jax.Array:
        return _call(evaluating(params, model_state), images_BxHxWxC, mean_C, std_C, masked)

    def evaluating(params: Any, model_state: Any) -> nnx.Module:
        module = merge(params, model_state, jax.random.key(0))
        module.eval()
        return module

    def module(params: Any, model_state: Any) -> Classifier:
        return Classifier(evaluating(params, model_state), mean_C, std_C, masked)

    # One more example than classes, so that a transposed result is seen.
    images = jax.ShapeDtypeStruct((classes + 1, *image_shape), jnp.uint8)
    mask = jax.ShapeDtypeStruct((classes + 1,), bool)
    params, model_state = jax.eval_shape(init, abstract_key)
    logits, new_state = jax.eval_shape(apply, params, model_state, images, mask, abstract_key)
    for result in (logits, jax.eval_shape(predict, params, model_state, images)):
        if getattr(result, 'shape', None) != (classes + 1, classes):
            wrong = f'maps {classes + 1} images to {result}, not to logits of shape {(classes + 1, classes)}'
            raise ValueError(f'model {architecture.model} {wrong}')
    if new_state != model_state:
        raise ValueError(f'model {architecture.model} changes the shape of its own state in a call')
    return Model(init, apply, predict, module)


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
