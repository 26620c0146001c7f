"""Sets of TensorFlow Datasets, made here."""

import os
import subprocess
import sys
from pathlib import Path

from helpers import ROOT

BUILDER = """
import numpy as np
import tensorflow_datasets as tfds

class BsgapColours(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version('1.0.0')

    def _info(self):
        image = tfds.features.Tensor(shape=(4, 5, 3), dtype=np.uint8)
        features = {'image': image, 'label': tfds.features.ClassLabel(num_classes=3)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {'train': self._generate_examples(20), 'test': self._generate_examples(10)}

    def _generate_examples(self, n):
        for i in range(n):
            yield i, {'image': np.full((4, 5, 3), i, np.uint8), 'label': i % 3}

class BsgapFarAway(BsgapColours):
    def _split_generators(self, dl_manager):
        dl_manager.download('http://127.0.0.1:9/images.gz')  # nothing listens there
"""


LOAD = """
import time
import builders
from bsgap import config, data
from bsgap.errors import UserError

def load(name):
    training_set = config.TrainingSet(0, 0.0)
    return data.load(config.Data(f'tfds:{name}', 0.0, (), ()), [training_set])[training_set]
"""


def in_python(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs code beside a module with TFDS builders, in a process of its own (TFDS keeps a registry)."""
    (folder / 'builders.py').write_text(BUILDER)
    return subprocess.run(
        [sys.executable, '-c', LOAD + code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, 'TFDS_DATA_DIR': str(folder / 'tfds'), 'PYTHONPATH': f'{folder}:{ROOT}'},
    )


def test_tfds_sets_are_prepared_once_and_need_a_network_for_it(tmp_path: Path) -> None:
    """One that is made here, and its decoded copy; one that is far away, of which a line says so within seconds."""
    code = """
for _ in range(2):
    d = load('bsgap_colours')
    assert d.train.examples_N.shape == (20, 4, 5, 3), d.train.examples_N.shape
    assert sorted(d.train.examples_N[:, 0, 0, 0].tolist()) == list(range(20))
    assert (d.train.labels_N == d.train.examples_N[:, 0, 0, 0] % 3).all()
    assert (d.outputs, len(d.splits['test'].labels_N)) == (3, 10)
began = time.monotonic()
try:
    load('bsgap_far_away')
except UserError as error:
    print(error)
assert time.monotonic() - began < 60
"""
    done = in_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob('tfds/**/bsgap-decoded.npz'))) == 1
    assert 'where there is a network' in done.stdout, done.stderr
    assert done.stdout.splitlines()[-1].startswith('config.dataset: tfds:bsgap_far_away cannot be read or prepared: ')
