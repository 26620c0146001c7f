"""What is the critical batch size of a transformer? A small one, which learns the next character of a text.

The text is Python's own documentation of its language, which every Python brings along (the topics of `help()`), in
windows of 32 characters; every tenth page of it is the test split. The transformer has two blocks of causal attention,
written with Flax NNX (Vaswani et al. 2017, 1706.03762; the layer norms come first), and is trained with Adam.

    python launch.py --config=experiments/characters.py          # the full search, for a GPU
    python launch.py --config=experiments/characters.py:quick    # a part of the text, a narrow transformer
    python launch.py --config=experiments/characters.py:smoke    # seconds; shows that it works

Expected (`:quick`): batch size 4 for two epochs, 256 for 128 updates, and a critical batch size that grows from about
11 for 73 % validation error to 22 for 68 % (docs/results). Time on 2 CPU cores: `:quick` 10 to 25 minutes, `:smoke`
half a minute. On one GPU the full search (estimated): some minutes.
"""

import pydoc_data.topics

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from ml_collections import ConfigDict

from bsgap import config

WINDOW = 32  # characters
CODES = 128  # of ASCII
PAGE = 60  # windows


def get_config(variant: str = '') -> ConfigDict:
    study = config.searching()
    study.name = 'characters'
    study.dataset, study.model = 'experiments.characters:data', 'experiments.characters:Transformer'
    study.model_arguments = {'width': 128, 'blocks': 2, 'heads': 4}
    study.optimizer = 'adam'
    study.sweep.batch_size = (4, 16, 64, 256, 1024)
    study.search.budget_epochs = 10.0
    study.search.budget_updates = 1000
    return config.with_variant(
        study,
        variant,
        quick={
            'subset': 4096,
            'model_arguments': {'width': 32, 'blocks': 2, 'heads': 2},
            'sweep.batch_size': (4, 16, 64, 256),
            'search.rungs': 1,
            'search.budget_epochs': 2.0,
            'search.budget_updates': 128,
        },
        smoke={
            'subset': 256,
            'validation': 0.02,
            'model_arguments': {'width': 8, 'blocks': 1, 'heads': 2},
            'sweep.batch_size': (4, 16),
            'sweep.learning_rate': (0.004, 0.016),
            'seeds': 2,
            'search.rungs': 1,
            'search.budget_epochs': 8.0,
            'search.budget_updates': 0,
            'search.confirm_seeds': 2,
        },
    )


def data() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Windows of the text as codes [N, 32], and with each character the one that comes next: train, and test."""
    topics = pydoc_data.topics.topics
    text = '\n'.join(topics[name] for name in sorted(topics)).encode('ascii', 'replace')
    codes_C = np.frombuffer(text, np.uint8).astype(np.int32)
    n = (len(codes_C) - 1) // WINDOW
    x_NxT, y_NxT = (codes_C[first : first + n * WINDOW].reshape(n, WINDOW) for first in (0, 1))
    is_test_N = np.arange(n) // PAGE % 10 == 9
    train, test = ((x_NxT[part], y_NxT[part]) for part in (~is_test_N, is_test_N))
    return train, test


class Block(nnx.Module):
    def __init__(self, width: int, heads: int, rngs: nnx.Rngs) -> None:
        self.first, self.second = nnx.LayerNorm(width, rngs=rngs), nnx.LayerNorm(width, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(heads, width, decode=False, rngs=rngs)
        self.wide, self.narrow = nnx.Linear(width, 4 * width, rngs=rngs), nnx.Linear(4 * width, width, rngs=rngs)

    def __call__(self, x_BxTxD: jax.Array, mask: jax.Array) -> jax.Array:
        x_BxTxD += self.attention(self.first(x_BxTxD), mask=mask)
        return x_BxTxD + self.narrow(nnx.gelu(self.wide(self.second(x_BxTxD))))


class Transformer(nnx.Module):
    """From codes [B, T] to logits [B, T, K] of the characters that come next."""

    def __init__(
        self, shape: tuple[int, ...], outputs: int, *, width: int, blocks: int, heads: int, rngs: nnx.Rngs
    ) -> None:
        self.embedding = nnx.Embed(CODES, width, rngs=rngs)
        self.positions = nnx.Embed(shape[0], width, rngs=rngs)
        self.blocks = nnx.List(Block(width, heads, rngs) for _ in range(blocks))
        self.norm, self.last = nnx.LayerNorm(width, rngs=rngs), nnx.Linear(width, outputs, rngs=rngs)

    def __call__(self, codes_BxT: jax.Array) -> jax.Array:
        mask = nnx.make_causal_mask(codes_BxT)
        x_BxTxD = self.embedding(codes_BxT) + self.positions(jnp.arange(codes_BxT.shape[1]))
        for block in self.blocks:
            x_BxTxD = block(x_BxTxD, mask)
        return self.last(self.norm(x_BxTxD))
