"""The models: Flax NNX modules, trained as pure functions of their parameters and state."""

from bsgap.models.cnn import CNN
from bsgap.models.mlp import MLP
from bsgap.models.norm import BatchNorm
from bsgap.models.pure import Format, Model, define, source_of, untold
