"""A file of NumPy arrays: x_train, y_train, x_test, y_test, as `numpy.savez` writes them."""

import re
import zipfile
from pathlib import Path

import numpy as np

from bsgap.config import Data
from bsgap.config.checks import require
from bsgap.data.examples import Source, reading
from bsgap.files import expanded

NAMES = {'x': 'x|data|examples|images|inputs', 'y': 'y|labels|targets'}


def read(where: str, settings: Data) -> Source:
    """Reads the four arrays, or two of a training split alone; also train_x, X_train, train_images and the like."""
    path = expanded(where)
    with reading(f'npz:{path}'), zipfile.ZipFile(path) as file, np.load(path, allow_pickle=False) as arrays:
        held = [name.removesuffix('.npy') for name in file.namelist()]
        names = {what: _find(path, what, held) for what in ('train x', 'train y', 'test x', 'test y')}
        found = {what: arrays[name] for what, name in names.items() if name}
    test = [found[what] for what in ('test x', 'test y') if what in found]
    require(len(test) != 1, 'dataset', f'npz:{path} has half a test split: {", ".join(filter(None, names.values()))}')
    return Source((found['train x'], found['train y']), (test[0], test[1]) if test else None)


def _find(path: Path, what: str, names: list[str]) -> str:
    """The one array of a split's examples or labels; '' if a test split has none."""
    split, kind = what.split()
    pattern = rf'({split})_?({NAMES[kind]})|({NAMES[kind]})_?({split})'
    found = [name for name in names if re.fullmatch(pattern, name, re.IGNORECASE)]
    needs = f'must hold exactly one array {kind}_{split}; it holds {", ".join(names) or "none"}'
    require(len(found) == 1 or (not found and split == 'test'), 'dataset', f'npz:{path} {needs}')
    return found[0] if found else ''
