"""Any NNX module as pure functions, the packaged ones and a user's own; what is wrong with one is named."""

import functools
import importlib
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bsgap.config import Architecture
from bsgap.models import Model, pure

MEAN, STD = np.float32([0.25]), np.float32([0.5])
KEY = jax.random.key(0)


def architecture(name: str = 'mlp', **fields: Any) -> Architecture:
    return Architecture(name, (6, 5), (), False, 0, ())._replace(**fields)


@functools.cache
def define(name: str = 'mlp', shape: tuple[int, int, int] = (4, 6, 1), classes: int = 3, **fields: Any) -> Model:
    function = pure.define(architecture(name, **fields), pure.Format(shape, classes, MEAN, STD))
    return function._replace(apply=jax.jit(function.apply), predict=jax.jit(function.predict))


def weights(function: Model, seed: int = 0) -> tuple[Any, Any]:
    """Some parameters and some state; those of `init` take a second to compile."""
    rng = np.random.default_rng(seed)
    params, state = jax.tree.map(
        lambda leaf: rng.normal(0, 0.5, leaf.shape).astype(np.float32), jax.eval_shape(function.init, KEY)
    )
    return params, jax.tree.map(np.abs, state)


def pictures(batch: int, shape: tuple[int, int, int] = (4, 6, 1), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, *shape), np.uint8)


def normalised(images: np.ndarray) -> np.ndarray:
    return (images / 255 - 0.25) / 0.5


@pytest.mark.parametrize(('name', 'batch_norm'), [('mlp', True), ('cnn', False), ('cnn', True)])
def test_every_parameter_has_a_gradient(name: str, batch_norm: bool) -> None:
    """None is idle: a bias in front of batch normalization would be."""
    function = define(name, channels=(3,), batch_norm=batch_norm)
    params, state = weights(function)

    @jax.jit
    @jax.grad
    def gradients(params: Any) -> jax.Array:
        logits, _ = function.apply(params, state, pictures(16), np.ones(16, bool), KEY)
        return (logits**2).sum()

    for gradient in jax.tree.leaves(gradients(params)):
        assert float(jnp.abs(gradient).max()) > 1e-3


@pytest.mark.parametrize('name', ['mlp', 'cnn'])
def test_padding_has_no_influence(name: str) -> None:
    """Whatever fills a batch of 7 valid examples, or nothing: the same logits, running statistics and gradients."""
    function = define(name, channels=(3,), batch_norm=True, ghost_batch=3)
    params, state = weights(function)
    images = pictures(12)

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(params: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        mask = np.arange(len(images)) < 7
        logits, new_state = function.apply(params, state, images, mask, KEY)
        return (jnp.where(mask[:, None], logits, 0) ** 2).sum(), (logits[:7], new_state)

    expected = gradient(params, images)
    filled = gradient(params, np.concatenate([images[:7], pictures(5, seed=1)]))
    jax.tree.map(np.testing.assert_array_equal, filled, expected)
    alone = gradient(params, images[:7])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), alone, expected)


@pytest.mark.parametrize('name', ['mlp', 'cnn'])
def test_in_evaluation_an_example_does_not_see_the_others(name: str) -> None:
    function = define(name, channels=(3,), batch_norm=True, ghost_batch=3)
    params, state = weights(function)
    images = pictures(8)
    _, state = function.apply(params, state, images, np.ones(8, bool), KEY)
    together = function.predict(params, state, images)
    alone = np.concatenate([function.predict(params, state, image[None]) for image in images])
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


class Own(nnx.Module):
    """A user's: its logits are the normalised mean brightness of an image (m, m, …), half of them dropped.

    Made in evaluation mode, as a module may be.
    """

    def __init__(self, image_shape: tuple[int, int, int], classes: int, *, rate: float = 0.5, rngs: nnx.Rngs) -> None:
        self.classes = classes
        self.weight = nnx.Param(jnp.ones(()))
        self.norm = nnx.BatchNorm(1, use_running_average=True, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(rate, deterministic=True, rngs=rngs)

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        m_Bx1 = self.weight * images_BxHxWxC.mean((1, 2))
        return self.dropout(jnp.repeat(self.norm(m_Bx1), self.classes, axis=1))


class TwoDropouts(Own):
    """The difference of two random streams."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int, *, rngs: nnx.Rngs) -> None:
        super().__init__(image_shape, classes, rngs=rngs)
        self.other = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        ones_BxK = jnp.ones((len(images_BxHxWxC), self.classes))
        return self.dropout(ones_BxK) - self.other(ones_BxK)


class Masked(Own):
    """Shows the mask that it is given, 2 where there is none."""

    def __call__(self, images_BxHxWxC: jax.Array, mask_B: jax.Array | None = None) -> jax.Array:
        shown = 2 if mask_B is None else mask_B[:, None]
        return jnp.zeros((len(images_BxHxWxC), self.classes)) + shown


class Transposed(Own):
    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        return super().__call__(images_BxHxWxC).T


class Pair(Own):
    def __call__(self, images_BxHxWxC: jax.Array) -> Any:
        return super().__call__(images_BxHxWxC), None


class Growing(Own):
    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        self.norm.mean.set_value(jnp.zeros(2))
        return jnp.zeros((len(images_BxHxWxC), self.classes))


def own(name: str) -> str:
    return f'{__name__}:{name}'


def test_a_users_module_trains_and_evaluates() -> None:
    function = define(own('Own'), classes=40)
    params, state = function.init(KEY)
    assert jax.tree.map(jnp.shape, (params, state)) == (
        {'weight': (), 'norm': {'scale': (1,), 'bias': (1,)}},
        {'norm': {'mean': (1,), 'var': (1,)}},
    )
    images, mask = pictures(8), np.ones(8, bool)
    m = normalised(images).mean((1, 2, 3))
    logits, new_state = function.apply(params, state, images, mask, KEY)
    expected = np.tile((m - m.mean())[:, None] / np.sqrt(m.var() + 1e-5), 40)
    kept = np.asarray(logits) != 0
    assert 0.3 < kept.mean() < 0.7
    np.testing.assert_allclose(np.asarray(logits)[kept], 2 * expected[kept], rtol=1e-3)
    np.testing.assert_allclose(new_state['norm']['mean'], [0.5 * m.mean()], rtol=1e-4)
    expected = (m - 0.5 * m.mean()) / np.sqrt(0.5 + 0.5 * m.var() + 1e-5)
    np.testing.assert_allclose(
        function.predict(params, new_state, images), np.tile(expected[:, None], 40), rtol=1e-3, atol=1e-5
    )


def test_randomness_is_a_function_of_the_key() -> None:
    function = define(own('Own'))
    params, state = function.init(KEY)
    images, mask = pictures(8), np.ones(8, bool)
    first, after = function.apply(params, state, images, mask, jax.random.key(1))
    again, _ = function.apply(params, after, images, mask, jax.random.key(1))
    np.testing.assert_array_equal(first, again)
    assert (function.apply(params, state, images, mask, jax.random.key(2))[0] != first).any()


def test_random_streams_differ() -> None:
    function = define(own('TwoDropouts'))
    logits, _ = function.apply(*function.init(KEY), pictures(8), np.ones(8, bool), KEY)
    assert logits.any()


def test_the_mask_is_given_to_who_asks_for_it() -> None:
    function = define(own('Masked'))
    variables, mask = function.init(KEY), np.array([True, True, False])
    logits, _ = function.apply(*variables, pictures(3), mask, KEY)
    np.testing.assert_array_equal(logits[:, 0], [1, 1, 0])
    np.testing.assert_array_equal(function.predict(*variables, pictures(3)), np.full((3, 3), 2))


def test_arguments_reach_a_users_module() -> None:
    function = define(own('Own'), arguments=(('rate', 0.0),))
    logits, _ = function.apply(*function.init(KEY), pictures(8), np.ones(8, bool), KEY)
    assert logits.all()


def test_a_users_module_is_found_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = 'from flax import nnx\nfrom bsgap.models import MLP\nclass Mine(MLP): pass\n'
    (tmp_path / 'my_models.py').write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    mine, mlp = define('my_models:Mine', arguments=(('hidden', (6, 5)),)), define()
    assert jax.eval_shape(mine.init, KEY) == jax.eval_shape(mlp.init, KEY)


@pytest.mark.parametrize('name', ['cnn', own('Own')])
def test_models_can_be_stacked(name: str) -> None:
    """Under `jit` and `vmap` over runs each is what it is alone."""
    function = define(name, channels=(3,), batch_norm=True, ghost_batch=3)
    images, mask = pictures(8), np.arange(8) < 7
    key_R = jax.random.split(KEY, 2)
    of_runs = [(*weights(function, seed), key) for seed, key in enumerate(key_R)]
    params_R, state_R, _ = jax.tree.map(lambda *leaves: np.stack(leaves), *[(*each[:2], 0) for each in of_runs])
    together = jax.jit(jax.vmap(function.apply, (0, 0, None, None, 0)))(params_R, state_R, images, mask, key_R)
    for r, (params, state, key) in enumerate(of_runs):
        alone = function.apply(params, state, images, mask, key)
        jax.tree.map(lambda a, b, r=r: np.testing.assert_allclose(a[r], b, rtol=1e-3, atol=1e-5), together, alone)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'model': 'no_such_module:Own'}, 'no_such_module:Own: ModuleNotFoundError: No module named'),
        ({'model': ':Own'}, ':Own: ValueError: Empty module name'),
        ({'model': own('Nobody')}, f'{__name__} has no Nobody'),
        ({'model': own('KEY')}, 'KEY is not an nnx.Module'),
        ({'model': own('Path')}, 'Path is not an nnx.Module'),
        ({'model': own('Own'), 'arguments': (('depth', 3),)}, "TypeError: .* argument 'depth'"),
        ({'model': own('Transposed')}, r'maps 4 examples to .*, not to logits of shape \(4, 3\)'),
        ({'model': own('Pair')}, r'maps 4 examples to .*, not to logits of shape \(4, 3\)'),
        ({'model': own('Growing')}, r'is float\[.*\] before a call and float\[.*\] after it'),
        ({'model': 'cnn', 'channels': (2, 2, 2)}, 'images of 4×6 are too small for 3 2×2 pools'),
    ],
)
def test_wrong_input_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        pure.define(architecture()._replace(**fields), pure.Format((4, 6, 1), 3, MEAN, STD))
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
    ('name', 'changes', 'message'),
    [
        ('mlp', {'dtype': np.int32}, 'config.model: mlp takes numbers, and the examples are whole numbers'),
        ('cnn', {'shape': (4, 6)}, r'config.model: cnn takes images \[H, W, C\], and the examples have shape \[4, 6\]'),
        ('mlp', {'label_shape': (5,)}, r'config.model: mlp gives one label an example, .* labels of shape \[5\]'),
    ],
)
def test_formats_that_our_models_do_not_take_are_named(name: str, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pure.define(architecture(name), pure.Format((4, 6, 1), 3, MEAN, STD)._replace(**changes))


def test_the_cause_of_a_failed_import_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'broken_models.py').write_text('1 / 0\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match=rf'{tmp_path}/broken_models.py:1: ZeroDivisionError: division by zero'
    ) as caught:
        define('broken_models:Mine')
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_architectures_are_compared_by_value() -> None:
    assert hash(architecture(hidden=(3, 4))) == hash(architecture(hidden=(3, 4)))
    assert architecture(hidden=(3, 4)) == architecture(hidden=(3, 4)) != architecture(ghost_batch=2)


@pytest.mark.parametrize('name', ['mlp', own('Own'), own('Masked')])
def test_a_module_for_use_does_what_is_predicted(name: str) -> None:
    """From uint8 images, in evaluation mode, and as any other NNX module."""
    function = define(name, batch_norm=True)
    params, state = weights(function)
    module = function.module(params, state)
    expected = function.predict(params, state, pictures(8))
    for called in (module, nnx.jit(module), nnx.merge(*nnx.split(module))):
        np.testing.assert_allclose(called(pictures(8)), expected, rtol=1e-5, atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(module.module, nnx.Param)), params)


def test_the_source_of_a_module_is_what_it_imports_of_the_user_s_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the way in which it is imported, and nothing that is installed, or beside it alone."""
    monkeypatch.syspath_prepend(tmp_path)
    files = {
        'sourced/__init__.py': '',
        'sourced/net.py': 'try:\n    from ...nowhere import y\nexcept ImportError:\n    pass\n'
        'import flax\nimport sourced_plain\nfrom . import sister\nfrom .deeper.far import f\n',
        'sourced/sister.py': 'from sourced_named import VALUE\n',
        'sourced/deeper/__init__.py': '',
        'sourced/deeper/far.py': 'def f():\n    import sourced_late\n',
        'sourced_plain.py': '',
        'sourced_named.py': 'VALUE = 1\n',
        'sourced_late.py': '',
        'sourced/unused.py': '',
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    importlib.import_module('sourced.net').f()
    known = pure.source_of('sourced.net')
    assert re.fullmatch('[0-9a-f]{64}', known)
    for name, text in files.items():
        (tmp_path / name).write_text(f'{text}\n')
        assert (pure.source_of('sourced.net') == known) == (name == 'sourced/unused.py')
        (tmp_path / name).write_text(text)
    assert pure.source_of('mlp') == pure.source_of('flax.nnx') == pure.source_of('bsgap.models.mlp') == ''


@pytest.mark.parametrize('hidden', [(), (6, 5)])
@pytest.mark.parametrize('batch', [1, 8, 9])
def test_layers_tell_the_norms_of_their_gradients(hidden: tuple[int, ...], batch: int) -> None:
    """Of a batch's gradient, and of each example's own, a masked one's included; whichever way it is computed."""
    function = define('mlp', hidden=hidden)
    params, state = weights(function)
    images, labels = pictures(batch), np.arange(batch) % 3
    weight_B = np.float32((np.arange(batch) < max(1, batch - 2)) / max(1, batch - 2))

    def loss(params: Any, probes: Any, weight_B: jax.Array) -> jax.Array:
        logits_BxK, _ = function.apply(params, state, images, weight_B > 0, KEY, probes)
        return -weight_B @ jax.nn.log_softmax(logits_BxK)[np.arange(batch), labels]

    assert function.per_example
    grads, told = jax.grad(loss, (0, 1))(params, function.probes(batch), weight_B)
    (square, *own) = sum(jax.tree.leaves(told))
    square += sum(float((leaf**2).sum()) for leaf in pure.untold(told, grads))
    plain = jax.grad(lambda params, weight_B: loss(params, None, weight_B))
    each = jax.vmap(plain, (None, 0))(params, np.diag(weight_B))

    def norm(tree: Any) -> float:
        return sum(float((np.float64(leaf) ** 2).sum()) for leaf in jax.tree.leaves(tree))

    np.testing.assert_allclose(square, norm(plain(params, weight_B)), rtol=2e-5)
    np.testing.assert_allclose(
        own, [norm(jax.tree.map(lambda leaf, b=b: leaf[b], each)) for b in range(batch)], rtol=2e-5
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), grads, plain(params, weight_B))


@pytest.mark.parametrize('fields', [{'batch_norm': True}, {'name': 'cnn', 'channels': (3,)}, {'name': own('Own')}])
def test_other_models_do_not_tell_each_example_s_gradient(fields: dict[str, Any]) -> None:
    function = define(fields.pop('name', 'mlp'), **fields)
    assert not function.per_example
    if not function.probes(3):
        return
    params, _ = weights(function)
    told = {path[:-1] for path, _ in jax.tree_util.tree_leaves_with_path(function.probes(3))}
    kernels = {path[:-1] for path, _ in jax.tree_util.tree_leaves_with_path(params) if path[-1].key == 'kernel'}
    assert told
    assert told <= kernels
    assert len(pure.untold(function.probes(3), params)) == len(jax.tree.leaves(params)) - len(told)
