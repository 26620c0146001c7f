"""The models and their layers, against their definitions written out in NumPy."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bsgap import model
from bsgap.config import Architecture

MEAN, STD = np.float32([0.25]), np.float32([0.5])
KEY = jax.random.key(0)


def architecture(name: str = 'mlp', **fields: Any) -> Architecture:
    return Architecture(name, (6, 5), (), False, 0, ())._replace(**fields)


@functools.cache
def define(name: str = 'mlp', shape: tuple[int, int, int] = (4, 6, 1), classes: int = 3, **fields: Any) -> model.Model:
    function = model.define(architecture(name, **fields), shape, classes, MEAN, STD)
    return function._replace(apply=jax.jit(function.apply), predict=jax.jit(function.predict))


def pictures(batch: int, shape: tuple[int, int, int] = (4, 6, 1), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, *shape), np.uint8)


def normalised(images: np.ndarray) -> np.ndarray:
    return (images / 255 - 0.25) / 0.5


def test_product_and_its_gradients_are_those_of_a_matrix_product() -> None:
    x_BxI = jax.random.normal(jax.random.key(0), (5, 7))
    w_IxO = jax.random.normal(jax.random.key(1), (7, 3))
    dy_BxO = jax.random.normal(jax.random.key(2), (5, 3))
    y, pull = jax.vjp(model.product, x_BxI, w_IxO)
    expected, expected_pull = jax.vjp(jnp.matmul, x_BxI, w_IxO)
    np.testing.assert_array_equal(y, expected)
    for got, want in zip(pull(dy_BxO), expected_pull(dy_BxO), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_convolution_and_its_gradients_are_those_of_xla() -> None:
    x_BxHxWxI = jax.random.normal(jax.random.key(0), (3, 5, 4, 2))
    w_3x3xIxO = jax.random.normal(jax.random.key(1), (3, 3, 2, 6))
    dy_BxHxWxO = jax.random.normal(jax.random.key(2), (3, 5, 4, 6))

    def expected(x: jax.Array, w: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(x, w, (1, 1), 'SAME', dimension_numbers=('NHWC', 'HWIO', 'NHWC'))

    y, pull = jax.vjp(model.convolution, x_BxHxWxI, w_3x3xIxO)
    expected_y, expected_pull = jax.vjp(expected, x_BxHxWxI, w_3x3xIxO)
    np.testing.assert_allclose(y, expected_y, rtol=1e-5, atol=1e-5)
    for found, wanted in zip(pull(dy_BxHxWxO), expected_pull(dy_BxHxWxO), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_logits_are_those_of_the_written_out_network() -> None:
    mlp = define(shape=(2, 2, 1))
    params, state = mlp.init(KEY)
    images = pictures(2, (2, 2, 1))
    x = normalised(images).reshape(2, 4)
    for i in range(3):
        x = x @ np.asarray(params['layers'][i]['kernel'], np.float64) + params['layers'][i]['bias']
        x = np.maximum(x, 0) if i < 2 else x
    logits, new_state = mlp.apply(params, state, images, np.ones(2, bool), KEY)
    np.testing.assert_allclose(logits, x, rtol=1e-5)
    np.testing.assert_array_equal(mlp.predict(params, state, images), logits)
    assert new_state == state == {}


def test_weights_are_xavier_normal_and_biases_zero() -> None:
    """A run's weights are a function of its key that may not change: each takes the next number of its stream."""
    layers = define(shape=(28, 28, 1), classes=10, hidden=(256, 256)).init(KEY)[0]['layers']
    for n, (layer, (i, o)) in enumerate(zip(layers.values(), ((784, 256), (256, 256), (256, 10)), strict=True)):
        assert layer['kernel'].shape == (i, o)
        np.testing.assert_allclose(layer['kernel'].std(), (2 / (i + o)) ** 0.5, rtol=0.05)
        assert abs(float(layer['kernel'].mean())) < 5 * (2 / (i + o)) ** 0.5 / (i * o) ** 0.5
        # The odd numbers are the biases'.
        expected = nnx.initializers.glorot_normal()(jax.random.fold_in(KEY, 2 * n), (i, o))
        np.testing.assert_array_equal(layer['kernel'], expected)
        assert not layer['bias'].any()


def test_the_input_width_comes_from_the_images() -> None:
    params, _ = define(shape=(4, 5, 3), classes=7, hidden=(8,)).init(KEY)
    assert jax.tree.map(jnp.shape, params['layers']) == {
        0: {'kernel': (60, 8), 'bias': (8,)},
        1: {'kernel': (8, 7), 'bias': (7,)},
    }


def test_the_convolutional_network_is_that_written_out() -> None:
    """With an odd size, so that a pool leaves out a row: 5×6 → 2×3 → 1×1."""
    cnn = define('cnn', (5, 6, 1), channels=(2, 3), hidden=(4,))
    params, state = cnn.init(KEY)
    images = pictures(2, (5, 6, 1))
    x = normalised(images)
    for layer in params['convolutions'].values():
        kernel = np.asarray(layer['kernel'], np.float64)
        around = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        height, width = x.shape[1:3]
        x = layer['bias'] + sum(
            around[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3)
        )
        x = np.maximum(x, 0)
        x = np.array([
            [[image[2 * i : 2 * i + 2, 2 * j : 2 * j + 2].max((0, 1)) for j in range(width // 2)]
             for i in range(height // 2)] for image in x
        ])  # fmt: skip
    assert x.shape == (2, 1, 1, 3)
    head = params['head']['layers']
    x = np.maximum(x.reshape(2, 3) @ head[0]['kernel'] + head[0]['bias'], 0) @ head[1]['kernel'] + head[1]['bias']
    np.testing.assert_allclose(cnn.predict(params, state, images), x, rtol=1e-4, atol=1e-6)


def test_convolutions_are_he_normal() -> None:
    params, _ = define('cnn', (28, 28, 1), channels=(32, 64)).init(KEY)
    first, second = (layer['kernel'] for layer in params['convolutions'].values())
    assert (first.shape, second.shape) == ((3, 3, 1, 32), (3, 3, 32, 64))
    np.testing.assert_allclose(first.std(), (2 / 9) ** 0.5, rtol=0.1)
    np.testing.assert_allclose(second.std(), (2 / (9 * 32)) ** 0.5, rtol=0.03)


@pytest.mark.parametrize(('name', 'batch_norm'), [('mlp', True), ('cnn', False), ('cnn', True)])
def test_every_parameter_has_a_gradient(name: str, batch_norm: bool) -> None:
    """None is idle: a bias in front of batch normalization would be."""
    function = define(name, channels=(3,), batch_norm=batch_norm)
    params, state = function.init(KEY)

    @jax.jit
    @jax.grad
    def gradients(params: Any) -> jax.Array:
        logits, _ = function.apply(params, state, pictures(16), np.ones(16, bool), KEY)
        return (logits**2).sum()

    for gradient in jax.tree.leaves(gradients(params)):
        assert float(jnp.abs(gradient).max()) > 1e-3


normalise = nnx.jit(lambda layer, *arguments: layer(*arguments))


def written_out(
    x: np.ndarray, mask: np.ndarray, ghost_batch: int, running: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
    """Batch normalization without scale and shift, one group after the other; what is not valid stays NaN."""
    y, (mean, var) = np.full(x.shape, np.nan), running
    size = ghost_batch or len(x)
    for start in range(0, len(x), size):
        group = np.flatnonzero(mask[start : start + size]) + start
        if len(group):
            values = x[group].reshape(-1, x.shape[-1])
            y[group] = (x[group] - values.mean(0)) / np.sqrt(values.var(0) + 1e-5)
            unbiased = values.var(0, ddof=1) if len(values) > 1 else 0
            mean, var = 0.9 * mean + 0.1 * values.mean(0), 0.9 * var + 0.1 * unbiased
    return y, (mean, var)


@pytest.mark.parametrize('positions', [(), (3, 2)])
@pytest.mark.parametrize(
    ('batch', 'ghost_batch', 'valid'),
    [
        (8, 0, 8),
        (8, 0, 5),
        (1, 0, 1),
        (8, 4, 8),  # whole groups
        (10, 4, 10),  # the last group smaller
        (10, 4, 9),  # and of one example
        (10, 4, 6),  # an empty group
        (10, 4, 1),
        (10, 1, 7),
        (4, 16, 3),  # one group, smaller than asked for
    ],
)
def test_batch_normalization_is_that_written_out(
    batch: int, ghost_batch: int, valid: int, positions: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(0)
    layer = model.BatchNorm(3, ghost_batch)
    scale, bias = rng.normal(size=3), rng.normal(size=3)
    layer.scale[...], layer.bias[...] = jnp.float32(scale), jnp.float32(bias)
    running = (np.zeros(3), np.ones(3))
    mask = np.arange(batch) < valid
    for _ in range(3):
        x = rng.normal(2, 3, (batch, *positions, 3))
        expected, running = written_out(x, mask, ghost_batch, running)
        y = normalise(layer, jnp.float32(x), jnp.array(mask))
        assert y.shape == x.shape
        np.testing.assert_allclose(y[:valid], (expected * scale + bias)[:valid], rtol=1e-4, atol=1e-4)
        assert np.isfinite(y).all()
        np.testing.assert_allclose(layer.mean[...], running[0], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(layer.var[...], running[1], rtol=1e-5, atol=1e-6)
    layer.eval()
    expected = (x - running[0]) / np.sqrt(running[1] + 1e-5) * scale + bias
    np.testing.assert_allclose(layer(jnp.float32(x)), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(layer.mean[...], running[0], rtol=1e-5, atol=1e-6)


def test_valid_examples_can_stand_anywhere() -> None:
    """Groups 0 and 2 of four are empty; no mask counts every example."""
    x = np.random.default_rng(0).normal(size=(8, 3))
    mask = np.array([0, 0, 1, 1, 0, 0, 0, 1], bool)
    for given, meant in ((jnp.array(mask), mask), (None, np.ones(8, bool))):
        layer = model.BatchNorm(3, 2)
        expected, (mean, var) = written_out(x, meant, 2, (np.zeros(3), np.ones(3)))
        np.testing.assert_allclose(
            normalise(layer, jnp.float32(x), given)[meant], expected[meant], rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(layer.mean[...], mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(layer.var[...], var, rtol=1e-5, atol=1e-6)


def test_hidden_layers_are_normalised_before_the_relu() -> None:
    mlp = define(batch_norm=True, ghost_batch=4)
    params, state = mlp.init(KEY)
    images, mask = pictures(8), np.ones(8, bool)
    x = normalised(images).reshape(8, -1)
    for i in range(2):
        x, _ = written_out(x @ np.asarray(params['layers'][i]['kernel'], np.float64), mask, 4, (np.zeros(1),) * 2)
        x = np.maximum(x, 0)
    x = x @ params['layers'][2]['kernel'] + params['layers'][2]['bias']
    np.testing.assert_allclose(mlp.apply(params, state, images, mask, KEY)[0], x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('name', ['mlp', 'cnn'])
def test_padding_has_no_influence(name: str) -> None:
    """Whatever fills a batch of 7 valid examples, or nothing: the same logits, running statistics and gradients."""
    function = define(name, channels=(3,), batch_norm=True, ghost_batch=3)
    params, state = function.init(KEY)
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
    params, state = function.init(KEY)
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
    source = 'from flax import nnx\nfrom bsgap.model import MLP\nclass Mine(MLP): pass\n'
    (tmp_path / 'my_models.py').write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    mine, mlp = define('my_models:Mine', arguments=(('hidden', (6, 5)),)), define()
    jax.tree.map(np.testing.assert_array_equal, mine.init(KEY), mlp.init(KEY))


@pytest.mark.parametrize('name', ['cnn', own('Own')])
def test_models_can_be_stacked(name: str) -> None:
    """Under `jit` and `vmap` over runs each is what it is alone."""
    function = define(name, channels=(3,), batch_norm=True, ghost_batch=3)
    images, mask = pictures(8), np.arange(8) < 7
    key_R = jax.random.split(KEY, 2)
    params_R, state_R = jax.vmap(function.init)(key_R)
    together = jax.jit(jax.vmap(function.apply, (0, 0, None, None, 0)))(params_R, state_R, images, mask, key_R)
    for r in range(2):
        params, state = function.init(key_R[r])
        alone = function.apply(params, state, images, mask, key_R[r])
        jax.tree.map(lambda a, b, r=r: np.testing.assert_allclose(a[r], b, rtol=1e-3, atol=1e-5), together, alone)


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'model': 'resnet'}, "no model 'resnet': mlp, cnn or module:Class"),
        ({'model': 'no_such_module:Own'}, 'cannot import no_such_module: No module named'),
        ({'model': ':Own'}, 'cannot import'),
        ({'model': own('Nobody')}, f'{__name__} has no Nobody'),
        ({'model': own('KEY')}, 'KEY is not an nnx.Module'),
        ({'model': own('Path')}, 'Path is not an nnx.Module'),
        ({'model': own('Own'), 'arguments': (('depth', 3),)}, "refuses its arguments: .*'depth'"),
        ({'model': own('Transposed')}, r'maps 4 images to .*, not to logits of shape \(4, 3\)'),
        ({'model': own('Pair')}, r'maps 4 images to .*, not to logits of shape \(4, 3\)'),
        ({'model': own('Growing')}, 'changes the shape of its own state'),
        ({'model': 'cnn', 'channels': (2, 2, 2)}, 'images of 4×6 are too small for 3 2×2 pools'),
    ],
)
def test_wrong_input_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        model.define(architecture()._replace(**fields), (4, 6, 1), 3, MEAN, STD)
    assert '\n' not in str(caught.value)


def test_the_cause_of_a_failed_import_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / 'broken_models.py').write_text('1 / 0\n')
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match='cannot import broken_models: division by zero') as caught:
        define('broken_models:Mine')
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_architectures_are_compared_by_value() -> None:
    assert hash(architecture(hidden=(3, 4))) == hash(architecture(hidden=(3, 4)))
    assert architecture(hidden=(3, 4)) == architecture(hidden=(3, 4)) != architecture(ghost_batch=2)
