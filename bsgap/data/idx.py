"""A folder of IDX files, plain or gzipped, such as the packaged MNIST."""

import gzip
import hashlib
import re
import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from bsgap.config.checks import require
from bsgap.data.examples import Source
from bsgap.errors import UserError
from bsgap.files import expanded

# MD5 of the decompressed files of the packaged MNIST, equal to the originals'.
MNIST = Path(__file__).parent / 'mnist'
MNIST_MD5 = {
    'train-images-idx3-ubyte': '6bbc9ace898e44ae57da46a324031adb',
    'train-labels-idx1-ubyte': 'a25bea736e30d166cdddb491f175f624',
    't10k-images-idx3-ubyte': '2646ac647ad5339dbf082846283269ea',
    't10k-labels-idx1-ubyte': '27ae3e4e09519cfbb04c329615203637',
}


def read(where: str | Path, md5: Mapping[str, str] | None = None) -> Source:
    """Reads the training and the test split of a folder; `md5` are the checksums that are known, by a file's stem.

    Raises:
      UserError: the folder or one of its files is missing, damaged, or not what it should be.
    """
    folder = expanded(where)
    require(folder.is_dir(), 'dataset', f'idx:{folder} is not a folder')
    splits = []
    for names in (('train',), ('t10k', 'test')):
        paths = [_find(folder, names, what) for what in ('images-idx[34]', 'labels-idx1')]
        images, labels = (_read_file(path, (md5 or {}).get(path.stem)) for path in paths)
        found = f'{paths[0]}: it has shape {images.shape} and its labels {labels.shape}'
        ok = images.ndim in (3, 4) and labels.ndim == 1
        require(ok, 'dataset', f'{found}; they must be [N, H, W] or [N, H, W, C], and [N]')
        found = f'{paths[0]} has {len(images)} images and {paths[1]} {len(labels)} labels'
        require(len(images) == len(labels), 'dataset', f'{found}; the counts must agree')
        splits.append((images, labels))
    return Source(*splits)


def _find(folder: Path, names: tuple[str, ...], what: str) -> Path:
    """The one file of `folder` for a split; EMNIST puts the name of its variant in front. Files that only look alike,
    half downloads and checksums among them, are left alone."""
    wanted = rf'([\w-]+-)?({"|".join(names)})-{what}-ubyte(\.gz)?'
    try:
        found = sorted(path for path in folder.iterdir() if re.fullmatch(wanted, path.name) and path.is_file())
    except OSError as error:
        raise UserError(f'config.dataset: idx:{folder} cannot be read: {error.strerror}') from error
    listed = ', '.join(path.name for path in found) or 'none'
    pattern = ' or '.join(f'[…-]{name}-{what}-ubyte[.gz]' for name in names)
    ok = len({path.name.removesuffix('.gz') for path in found}) == 1
    require(ok, 'dataset', f'idx:{folder} must hold exactly one file {pattern}; found: {listed}')
    return found[0]


def _read_file(path: Path, md5: str | None) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, plain or gzipped (yann.lecun.com/exdb/mnist describes the format)."""
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == '.gz' else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(f'config.dataset: {path} cannot be read: {error}') from error
    # Magic number: two zero bytes, the type (8: unsigned byte) and the number of dimensions.
    ok = len(content) >= 4 and content[:3] == b'\x00\x00\x08' and content[3]
    require(ok, 'dataset', f'{path} is no IDX file of bytes: it starts with {content[:4].hex()!r}')
    header = 4 + 4 * content[3]
    short = f'{len(content)} bytes, its header alone has {header}'
    require(len(content) >= header, 'dataset', f'{path} is truncated: {short}')
    shape = struct.unpack(f'>{content[3]}I', content[4:header])
    body = np.frombuffer(content, np.uint8, offset=header)
    other = f'its header says {shape}, it holds {body.size} bytes'
    require(body.size == np.prod(shape, dtype=object), 'dataset', f'{path} is truncated or too long: {other}')
    ok = not md5 or hashlib.md5(content, usedforsecurity=False).hexdigest() == md5
    require(ok, 'dataset', f'{path} is damaged: its MD5 is not {md5}; install bsgap again')
    return body.reshape(shape)
