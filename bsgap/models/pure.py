"""Any Flax NNX module as pure functions of its parameters and its state."""

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from bsgap.config import Architecture
from bsgap.errors import UserError, is_theirs, users_code
from bsgap.models.cnn import CNN
from bsgap.models.layers import Probe
from bsgap.models.mlp import MLP

_KINDS: Any = (nnx.Param, nnx.RngState, Probe, ...)  # what a module holds, parted as `Model` says


class Format(NamedTuple):
    """What a model is told of the data."""

    shape: tuple[int, ...]  # of an example, such as (H, W, C)
    outputs: int  # K, for each label
    mean_C: np.ndarray  # by which bytes on a scale from 0 to 1, and numbers, are normalised
    std_C: np.ndarray
    dtype: Any = np.uint8  # or float32 or int32
    label_shape: tuple[int, ...] = ()  # of an example's labels
    target_mean_K: np.ndarray | None = None  # of a regression, by which its targets were standardised
    target_std_K: np.ndarray | None = None


class Model(NamedTuple):
    """A model as pure functions of its parameters and its state, which are nested dicts of arrays.

    Parameters (`nnx.Param`) train. All other arrays are its `model_state`, which a call in training may change, as
    batch normalization's running statistics, as long as shapes stay; a random key is there as its data, uint32. Random
    streams (`nnx.Rngs`) start anew in each call, what is sown (`nnx.Intermediate`) is dropped, and everything else is a
    constant. Logits are float32. Examples that are not in `mask_B` (bool) only fill a batch.

    init: `init(key) -> (params, model_state)`.
    apply: for training, `apply(params, model_state, examples_B, mask_B, key, probes) -> (logits_BxK, model_state)`.
    predict: for evaluation, `predict(params, model_state, examples_B) -> logits_BxK`.
    module: for use, `module(params, model_state)` is an NNX module that does the same: `module(examples_B)`.
    """

    init: Callable[[jax.Array], tuple[Any, Any]]
    apply: Callable[..., tuple[jax.Array, Any]]
    predict: Callable[..., jax.Array]
    module: Callable[[Any, Any], 'Classifier']
    probes: Callable[[int], Any] = lambda _: {}  # of a batch of B, by which layers tell norms; 0: no example's own
    per_example: bool = False  # whether they tell each example's own gradient as a whole


class Classifier(nnx.Module):
    """A module together with its normalisation, from examples as they were trained on to float32 logits, or to targets
    in their own unit."""

    def __init__(self, module: nnx.Module, of: Format) -> None:
        self.module, self.dtype = module, np.dtype(of.dtype)
        shift, scale = (0.0, 1.0) if of.target_mean_K is None else (of.target_mean_K, of.target_std_K)
        constants = (of.mean_C, of.std_C, shift, scale)
        self.mean_C, self.std_C, self.shift, self.scale = (nnx.Variable(jnp.asarray(each)) for each in constants)

    def __call__(self, examples_B: jax.Array) -> jax.Array:
        """Gives `logits_BxK`."""
        x_B = _normalised(jnp.asarray(examples_B), self.dtype, self.mean_C[...], self.std_C[...])
        return _call(self.module, x_B).astype(jnp.float32) * self.scale[...] + self.shift[...]


def _normalised(examples_B: jax.Array, dtype: Any, mean_C: Any, std_C: Any) -> jax.Array:
    if dtype == np.int32:
        return examples_B.astype(jnp.int32)
    x_B = examples_B.astype(jnp.float32)
    return ((x_B / 255 if dtype == np.uint8 else x_B) - mean_C) / std_C


def _call(module: Any, x_B: jax.Array, mask_B: Any = None) -> Any:
    takes_mask = 'mask_B' in inspect.signature(type(module).__call__).parameters
    return module(x_B, mask_B=mask_B) if takes_mask else module(x_B)


def define(architecture: Architecture, of: Format) -> Model:
    """Makes a model for examples of a format, which it first normalises: bytes (uint8) to (x/255 − mean)/std, numbers
    (float32) to (x − mean)/std; tokens (int32) stay as they are.

    A model of the user's own is any `nnx.Module` that is made as `Class(shape, outputs, **arguments, rngs=rngs)` and
    called as `module(x_B)`, or `module(x_B, mask_B=mask_B)` if its `__call__` has a parameter of that name: the mask in
    training, None in evaluation. NNX's `train()` and `eval()` set its mode (`nnx.BatchNorm` counts the examples that
    only fill a batch unless the module hands it a mask).

    Raises:
      UserError: no such model, or it does not take its arguments, can't be trained or saved, or does not give
        `logits_BxK`. The functions of the model raise it too, where it behaves otherwise at other batch sizes.
    """
    what = f'config.model: {architecture.model}'
    module_class, arguments = _find(architecture, what)
    if module_class in (MLP, CNN) and of.dtype == np.int32:
        raise UserError(f'{what} takes numbers, and the examples are whole numbers, which are tokens; give floats')
    if module_class in (MLP, CNN) and of.label_shape:
        needs = 'gives one label an example, and the examples have labels of shape'
        raise UserError(f'{what} {needs} {list(of.label_shape)}; use a model of your own')
    if module_class is CNN and len(of.shape) != 3:
        raise UserError(f'{what} takes images [H, W, C], and the examples have shape {list(of.shape)}')
    made = dict[str, Any]()  # of tracing: what of the module is no array, and its keys

    def build(key: jax.Array) -> list[Any]:
        """Parameters, random streams, and state."""
        module = module_class(of.shape, of.outputs, **arguments, rngs=nnx.Rngs(key))
        for _, node in nnx.iter_graph(module):
            for name, value in [*vars(node).items()] if isinstance(node, nnx.Module) else ():
                # While JAX traces, NNX takes arrays that are no variables for constants of the class.
                if not nnx.is_data(value) and any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(value)):
                    setattr(node, name, nnx.data(value))
        made['graphdef'], *parts = nnx.split(module, *_KINDS)
        params, streams, probes, state = map(nnx.to_pure_dict, parts)
        made['probes'] = jax.tree.map(lambda _: np.zeros(0, np.float32), probes)
        made['keys'] = jax.tree.map(lambda leaf: jax.random.key_impl(leaf) if _is_key(leaf) else '', state)
        return [jax.tree.map_with_path(_data, params), streams, jax.tree.map_with_path(_data, state)]

    def merge(params: Any, model_state: Any, key: jax.Array, probes: Any = None) -> Any:
        rng_state = [
            jax.random.split(jax.random.fold_in(key, i), stream.shape)
            if _is_key(stream)
            else jnp.zeros(stream.shape, stream.dtype)
            for i, stream in enumerate(streams)
        ]
        state = jax.tree.map(
            lambda leaf, impl: jax.random.wrap_key_data(leaf, impl=impl) if impl else leaf, model_state, made['keys']
        )
        told = probes or made['probes']
        return nnx.merge(made['graphdef'], params, state, told, jax.tree.unflatten(streams_tree, rng_state))

    def init(key: jax.Array) -> tuple[Any, Any]:
        with users_code(what, always=True):
            params, _, model_state = build(key)
        return params, model_state

    def called(module: nnx.Module, examples_B: jax.Array, mask_B: jax.Array | None = None) -> jax.Array:
        with users_code(what, always=True):
            logits = _call(module, _normalised(examples_B, of.dtype, of.mean_C, of.std_C), mask_B)
        expected = len(examples_B), *of.label_shape, of.outputs
        if getattr(logits, 'shape', None) != expected or not jnp.issubdtype(logits.dtype, jnp.floating):
            problem = f'maps {expected[0]} examples to {logits}, not to logits of shape {expected}, which are floats'
            raise UserError(f'{what}: {" ".join(problem.split())}')
        return logits.astype(jnp.float32)

    def apply(
        params: Any, model_state: Any, examples_B: jax.Array, mask_B: jax.Array, key: jax.Array, probes: Any = None
    ) -> tuple[jax.Array, Any]:
        with users_code(what, always=True):
            module = merge(params, model_state, key, probes)
            module.train()
        logits_BxK = called(module, examples_B, mask_B)
        after = _leaves(nnx.split(module, *_KINDS)[-1])
        dropped = _leaves(nnx.state(module, nnx.Intermediate)).keys() - _leaves(model_state).keys()
        return logits_BxK, _carried(what, model_state, {k: v for k, v in after.items() if k not in dropped})

    def predict(params: Any, model_state: Any, examples_B: jax.Array) -> jax.Array:
        return called(evaluating(params, model_state), examples_B)

    def evaluating(params: Any, model_state: Any) -> nnx.Module:
        with users_code(what, always=True):
            module = merge(params, model_state, jax.random.key(0))
            module.eval()
        return module

    def module(params: Any, model_state: Any) -> Classifier:
        return Classifier(evaluating(params, model_state), of)

    abstract_key = jax.eval_shape(jax.random.key, 0)
    with users_code(what, always=True):
        params, streams, model_state = jax.eval_shape(build, abstract_key)
    streams, streams_tree = jax.tree.flatten(streams)
    for path, leaf in _leaves(params).items():
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            needs = 'a parameter is of floats; use nnx.Variable for what does not train'
            raise UserError(f'{what}: {_name(path)} is {leaf.dtype}; {needs}')
    if not _leaves(params):
        raise UserError(f'{what}: it has no nnx.Param, so there is nothing to train')
    # One more example than outputs, so that a transposed result is seen.
    examples = jax.ShapeDtypeStruct((of.outputs + 1, *of.shape), of.dtype)
    mask = jax.ShapeDtypeStruct((of.outputs + 1,), bool)
    jax.eval_shape(predict, params, model_state, examples)
    with users_code(what, always=True):  # what has no gradient is known now, too
        slope = jax.grad(lambda *of: apply(*of)[0].sum())
        jax.eval_shape(slope, params, model_state, examples, mask, abstract_key)

    def probes(batch: int) -> Any:
        if ':' in architecture.model:  # a module of the user's may call a layer twice
            return {}
        return jax.tree.map(lambda _: np.zeros(1 + batch, np.float32), made['probes'])

    per_example = all(path[:-1] in _layers(probes(0)) for path in _leaves(params))
    return Model(init, apply, predict, module, probes, per_example)


def _layers(probes: Any) -> set[Any]:
    return {path[:-1] for path in _leaves(probes)}


def untold(probes: Any, grads: Any) -> list[jax.Array]:
    """The leaves of a gradient whose norms the layers do not tell."""
    told, leaves = _layers(probes), _leaves(grads).items()
    return [leaf for path, leaf in leaves if path[:-1] not in told or path[-1].key != 'kernel']


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array | jax.ShapeDtypeStruct) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _data(path: Any, leaf: Any) -> jax.Array:
    """A leaf as an array whose dtype is its own; that of a Python number would change with what it is added to."""
    try:
        array = jax.random.key_data(leaf) if _is_key(leaf) else jnp.asarray(leaf)
    except TypeError as error:
        raise TypeError(f'{_name(path)} is {leaf!r:.60}, which is no array') from error
    return jax.lax.convert_element_type(array, array.dtype)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator='.')


def _carried(what: str, before: Any, after: dict[Any, Any]) -> Any:
    """A module's state after a call, given by path, as the tree and in the dtypes that it had before."""
    after = {path: _data(path, leaf) for path, leaf in after.items()}
    for path in (old := _leaves(before)) | after:
        first, then = (_looks(leaves.get(path)) for leaves in (old, after))
        if first != then:
            changes = f'{_name(path)} is {first} before a call and {then} after it'
            raise UserError(f'{what}: {changes}; shapes and kinds must stay')
    return jax.tree.unflatten(jax.tree.structure(before), [after[path].astype(old[path].dtype) for path in old])


def _leaves(state: Any) -> dict[Any, Any]:
    """By their paths."""
    return dict(jax.tree.leaves_with_path(nnx.to_pure_dict(state) if isinstance(state, nnx.State) else state))


def _looks(leaf: Any) -> str:
    """What of an array must stay."""
    if leaf is None:
        return 'absent'
    return f'{"float" if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf.dtype}{list(leaf.shape)}'


def _find(architecture: Architecture, what: str) -> tuple[type[Any], dict[str, Any]]:
    """The class of a model and its keyword arguments."""
    name, hidden, channels, batch_norm, ghost_batch, arguments = architecture
    dense = {'hidden': hidden, 'batch_norm': batch_norm, 'ghost_batch': ghost_batch}
    if name == 'mlp':
        return MLP, dense
    if name == 'cnn':
        return CNN, {'channels': channels, **dense}
    module_name, _, class_name = name.partition(':')
    with users_code(what, always=True):
        found = getattr(importlib.import_module(module_name), class_name, None)
    if found is None:
        raise UserError(f'{what}: {module_name} has no {class_name}')
    if not (isinstance(found, type) and issubclass(found, nnx.Module)):
        raise UserError(f'{what}: {class_name} is not an nnx.Module')
    return found, dict(arguments)


def source_of(name: str) -> str:
    """The SHA-256 of the module of `module:anything` and all that it imports of the user's own; '' of another's."""
    digest, seen, left = hashlib.sha256(), set[str](), [name.partition(':')[0]]
    while left:
        module = sys.modules.get(left.pop())
        file = getattr(module, '__file__', None)
        if not (module and file and file.endswith('.py') and is_theirs(file)) or module.__name__ in seen:
            continue
        seen.add(module.__name__)
        left.append(module.__name__.rpartition('.')[0])
        source = Path(file).read_bytes()
        digest.update(f'{module.__name__} {len(source)} '.encode() + source)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                left += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                with contextlib.suppress(ImportError):  # it brought nothing in
                    base = importlib.util.resolve_name('.' * node.level + (node.module or ''), module.__package__)
                    left += [base, *(f'{base}.{alias.name}' for alias in node.names)]
    return digest.hexdigest() if seen else ''
