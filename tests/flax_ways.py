"""Small modules in the ways in which Flax's own documentation writes them; those above `SOUND` train."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

WIDTH = 4


class Base(nnx.Module):
    """Flat images to WIDTH features, something of a subclass's, then logits."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int, *, rngs: nnx.Rngs) -> None:
        self.first = nnx.Linear(math.prod(image_shape), WIDTH, rngs=rngs)
        self.last = nnx.Linear(WIDTH, classes, rngs=rngs)
        self.make(rngs)

    def make(self, rngs: nnx.Rngs) -> None:
        """Nothing by default."""

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return x_BxW

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        return self.last(self.use(jnp.tanh(self.first(images_BxHxWxC.reshape(len(images_BxHxWxC), -1)))))


def linear(rngs: nnx.Rngs, **made: Any) -> nnx.Linear:
    return nnx.Linear(WIDTH, WIDTH, rngs=rngs, **made)


class Listed(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.List([linear(rngs) for _ in range(2)])

    def use(self, x_BxW: jax.Array) -> jax.Array:
        for layer in self.layers:
            x_BxW = layer(x_BxW)
        return x_BxW


class Named(Base):
    """Names that are one where their parts are put side by side with dots."""

    def make(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.Dict({'a.b': linear(rngs), 'a': nnx.Dict({'b': linear(rngs)}), 'c/d': linear(rngs)})

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return self.layers['a.b'](x_BxW) + self.layers['a']['b'](x_BxW) + self.layers['c/d'](x_BxW)


class Sequenced(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.Sequential(linear(rngs), nnx.relu, linear(rngs))

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return self.layers(x_BxW)


class Recurrent(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.layer = nnx.RNN(nnx.LSTMCell(1, WIDTH, rngs=rngs))

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return self.layer(x_BxW[..., None])[:, -1]


class Attentive(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.layer = nnx.MultiHeadAttention(2, 1, WIDTH, 1, decode=False, rngs=rngs)

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return self.layer(x_BxW[..., None])[..., 0]


class Scanned(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def layers(rngs: nnx.Rngs) -> nnx.Linear:
            return linear(rngs)

        self.layers = layers(rngs)

    def use(self, x_BxW: jax.Array) -> jax.Array:
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def forward(layer: nnx.Linear, x_BxW: jax.Array) -> jax.Array:
            return nnx.relu(layer(x_BxW))

        return forward(self.layers, x_BxW)


class Rematerialised(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.layer = linear(rngs)

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return nnx.remat(lambda layer, x: jnp.sin(layer(x)))(self.layer, x_BxW)


class Sowing(Base):
    def use(self, x_BxW: jax.Array) -> jax.Array:
        self.sow(nnx.Intermediate, 'features', x_BxW)
        return x_BxW


class SpectrallyNormed(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.layer = nnx.SpectralNorm(linear(rngs), rngs=rngs)

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return self.layer(x_BxW)


class WeightNormed(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.layer = nnx.WeightNorm(linear(rngs), rngs=rngs)

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return self.layer(x_BxW)


class Tied(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.one, self.other = linear(rngs), linear(rngs)
        self.other.kernel = self.one.kernel

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return self.other(self.one(x_BxW))


class Measuring(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.metrics = nnx.MultiMetric(mean=nnx.metrics.Average('x'))

    def use(self, x_BxW: jax.Array) -> jax.Array:
        self.metrics.update(x=x_BxW)
        return x_BxW


class Together(Base):
    """Several layers as one, by `nnx.vmap`."""

    def make(self, rngs: nnx.Rngs) -> None:
        self.layers = nnx.split_rngs(splits=2)(nnx.vmap(linear, in_axes=0, out_axes=0))(rngs)

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return nnx.vmap(lambda layer, x: layer(x), in_axes=(0, None), out_axes=0)(self.layers, x_BxW).mean(0)


class Normed(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.norm, self.drop = nnx.BatchNorm(WIDTH, rngs=rngs), nnx.Dropout(0.5, rngs=rngs)

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return self.drop(self.norm(x_BxW))


class WithConstants(Base):
    """Arrays that are no variables: of JAX, of NumPy, a random key."""

    def make(self, rngs: nnx.Rngs) -> None:
        self.scale, self.shift = 2 * jnp.ones(WIDTH), np.arange(WIDTH, dtype=np.float64)
        self.key, self.pair = jax.random.key(1), nnx.data((jnp.ones(WIDTH), jnp.zeros(WIDTH)))

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return x_BxW * self.scale + self.shift + self.pair[0] + jax.random.normal(self.key, x_BxW.shape)


class Keyed(Base):
    """A random key that is carried."""

    def make(self, rngs: nnx.Rngs) -> None:
        self.key = nnx.Variable(jax.random.key(0))

    def use(self, x_BxW: jax.Array) -> jax.Array:
        now, self.key[...] = jax.random.split(self.key[...])
        return x_BxW + 0.01 * jax.random.normal(now, x_BxW.shape)


class Counting(Base):
    """A state that begins as a Python number, and one whose kind of number JAX has to guess."""

    def make(self, rngs: nnx.Rngs) -> None:
        self.calls, self.mean = nnx.Variable(0), nnx.Variable(jnp.asarray(0.0))

    def use(self, x_BxW: jax.Array) -> jax.Array:
        self.calls.set_value(self.calls.get_value() + 1)
        self.mean[...] = 0.9 * self.mean[...] + 0.1 * x_BxW.mean()
        return x_BxW


class Empty(Base):
    """A parameter without elements."""

    def make(self, rngs: nnx.Rngs) -> None:
        self.empty = nnx.Param(jnp.zeros((0,)))


class HalfWeights(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.layer = linear(rngs, param_dtype=jnp.bfloat16)
        self.norm = nnx.BatchNorm(WIDTH, param_dtype=jnp.float16, rngs=rngs)

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return self.norm(self.layer(x_BxW))


class Perturbed(Base):
    """What is only to be looked at, made beforehand."""

    def make(self, rngs: nnx.Rngs) -> None:
        self.seen = nnx.Perturbation(jnp.zeros(WIDTH))

    def use(self, x_BxW: jax.Array) -> jax.Array:
        self.sow(nnx.Intermediate, 'features', x_BxW)
        return x_BxW + self.seen[...]


class HalfComputed(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.last = nnx.Linear(WIDTH, self.last.out_features, dtype=jnp.bfloat16, rngs=rngs)


class Adapted(Base):
    """A low-rank adapter beside a layer that stays."""

    def make(self, rngs: nnx.Rngs) -> None:
        self.layer = nnx.LoRA(WIDTH, 2, WIDTH, base_module=linear(rngs), rngs=rngs)

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return self.layer(x_BxW)


class OfDtype(Base):
    """All parameters, and a state, of a dtype."""

    def __init__(self, image_shape: tuple[int, int, int], classes: int, *, dtype: str, rngs: nnx.Rngs) -> None:
        kind: Any = jnp.dtype(dtype)
        self.first = nnx.Linear(math.prod(image_shape), WIDTH, param_dtype=kind, rngs=rngs)
        self.norm = nnx.LayerNorm(WIDTH, param_dtype=kind, rngs=rngs)
        self.last = nnx.Linear(WIDTH, classes, param_dtype=kind, rngs=rngs)

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return self.norm(x_BxW)


SOUND = [made.__name__ for made in Base.__subclasses__() if made.__name__ != 'OfDtype']  # which takes an argument


class Cached(Base):
    """Attention that keeps what it has seen, for a batch of 4."""

    def make(self, rngs: nnx.Rngs) -> None:
        self.layer = nnx.MultiHeadAttention(2, WIDTH, WIDTH, decode=True, rngs=rngs)
        self.layer.init_cache((4, 5, WIDTH))

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return self.layer(x_BxW[:, None])[:, 0]


class Growing(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.seen = nnx.Variable(jnp.zeros(1))

    def use(self, x_BxW: jax.Array) -> jax.Array:
        self.seen.set_value(jnp.append(self.seen[...], 1.0))
        return x_BxW


class MadeInACall(Base):
    def use(self, x_BxW: jax.Array) -> jax.Array:
        self.later = nnx.Variable(x_BxW.mean())
        return x_BxW


class WholeParameter(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.steps = nnx.Param(jnp.arange(3))


class PlainList(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.layers = [linear(rngs)]


class WrongWidth(Base):
    def use(self, x_BxW: jax.Array) -> jax.Array:
        return x_BxW @ jnp.ones((WIDTH + 1, WIDTH))


class Misspelt(Base):
    def use(self, x_BxW: jax.Array) -> jax.Array:
        return jnpp.tanh(x_BxW)  # type: ignore[name-defined]  # noqa: F821


class Leaving(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        raise SystemExit(3)


class Squeezing(Base):
    """Right but for a batch of one."""

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        return super().__call__(images_BxHxWxC).squeeze()


def fail(x_BxW: np.ndarray) -> np.ndarray:
    raise ArithmeticError('in a callback')


class Calling(Base):
    """Of what goes wrong when a program runs."""

    def use(self, x_BxW: jax.Array) -> jax.Array:
        return x_BxW + jax.lax.stop_gradient(jax.pure_callback(fail, x_BxW, jax.lax.stop_gradient(x_BxW)))


@functools.cache
def cached() -> jax.Array:
    return jnp.arange(WIDTH) * 0.1


class Caching(Base):
    def use(self, x_BxW: jax.Array) -> jax.Array:
        return x_BxW + cached()


class WithoutGradient(Base):
    def use(self, x_BxW: jax.Array) -> jax.Array:
        return jax.lax.while_loop(lambda c: c[0] < 3, lambda c: (c[0] + 1, 2 * c[1]), (0, x_BxW))[1]


class WithoutParameters(nnx.Module):
    def __init__(self, image_shape: tuple[int, int, int], classes: int, *, rngs: nnx.Rngs) -> None:
        self.classes = classes

    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        return images_BxHxWxC.reshape(len(images_BxHxWxC), -1)[:, : self.classes]


class Whole(Base):
    def __call__(self, images_BxHxWxC: jax.Array) -> jax.Array:
        return super().__call__(images_BxHxWxC) > 0


class OtherTrain(Base):
    def train(self, mode: bool) -> None:  # type: ignore[override]
        """As PyTorch has it."""


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError


class Speechless(Base):
    """What it raises can't be read."""

    def make(self, rngs: nnx.Rngs) -> None:
        raise SpeechlessError


class Text(Base):
    def make(self, rngs: nnx.Rngs) -> None:
        self.text = nnx.Variable('hello')
