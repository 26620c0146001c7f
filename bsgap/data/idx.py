"""A folder of IDX files, plain or gzipped, such as the packaged MNIST."""

import gzip
import hashlib
import re
import struct
from pathlib import Path

import numpy as np

from bsgap.config import Data
from bsgap.config.checks import require
from bsgap.data.examples import Source, reading
from bsgap.files import expanded

# MD5 of the decompressed files of the packaged MNIST, equal to the originals'.
MNIST = Path(__file__).parent / 'mnist'
MNIST_MD5 = {
    'train-images-idx3-ubyte': '6bbc9ace898e44ae57da46a324031adb',
    'train-labels-idx1-ubyte': 'a25bea736e30d166cdddb491f175f624',
    't10k-images-idx3-ubyte': '2646ac647ad5339dbf082846283269ea',
    't10k-labels-idx1-ubyte': '27ae3e4e09519cfbb04c329615203637',
}
# Files that only look alike, half downloads and checksums among them, have other names.
NAME = re.compile(r'(?:([\w-]+)-)?(train|t10k|test)-(images|labels)[-.]idx[1-4]-[a-z]+(?:\.gz)?')
TYPES = {8: '>u1', 9: '>i1', 11: '>i2', 12: '>i4', 13: '>f4', 14: '>f8'}  # by the third byte of a file


def read(where: str | Path, settings: Data) -> Source:
    """Reads the training and the test split of a folder: `[NAME-]train-images-idx3-ubyte[.gz]` and the like.

    The files may lie in FOLDER, in FOLDER/raw, or in FOLDER/NAME/raw, where torchvision puts them. Of several sets in
    a folder, as EMNIST comes, FOLDER/NAME is the one whose files begin with NAME. Of labels [N, K], as QMNIST has them,
    the first column is the class.
    """
    asked = expanded(where)
    folder, prefix = (asked, None) if asked.is_dir() else (asked.parent, asked.name)
    require(folder.is_dir(), 'dataset', f'idx:{asked} is not a folder')
    with reading(f'idx:{folder}'):
        places = [folder, *sorted(folder.glob('raw')), *sorted(folder.glob('*/raw'))]
        paths = [path for place in places for path in sorted(place.iterdir()) if path.is_file()]
    found = [(path, match) for path in paths if (match := NAME.fullmatch(path.name))]
    sets = sorted({(path.parent, match[1] or '') for path, match in found if prefix in (None, match[1])})
    names = ', '.join(str(place / name) for place, name in sets)
    require(len(sets) < 2, 'dataset', f'idx:{asked} holds several sets; give one of {names}')
    require(sets or prefix is None, 'dataset', f'idx:{asked} is not a folder, and no files begin with {prefix}')
    of = [(path, match) for path, match in found if sets and (path.parent, match[1] or '') == sets[0]]
    md5 = MNIST_MD5 if asked == MNIST else {}
    splits = []
    for split in ('train',), ('t10k', 'test'):
        paths = [_one(asked, split, what, of) for what in ('images', 'labels')]
        images, labels = (_read_file(path, md5.get(path.stem)) for path in paths)
        shapes = f'{paths[0]}: it has shape {images.shape} and its labels {labels.shape}'
        ok = images.ndim in (2, 3, 4) and labels.ndim in (1, 2) and labels.size
        require(ok, 'dataset', f'{shapes}; they must be [N, H, W], [N, H, W, C] or [N, F], and [N] or [N, K]')
        counts = f'{paths[0]} has {len(images)} images and {paths[1]} {len(labels)} labels'
        require(len(images) == len(labels), 'dataset', f'{counts}; the counts must agree')
        splits.append((images, labels if labels.ndim == 1 else labels[:, 0]))
    train, test = splits
    elsewhere = (f'its files are those in {sets[0][0]}',) if sets[0][0] != folder else ()
    return Source(train, test, elsewhere)


def _one(asked: Path, split: tuple[str, ...], what: str, of: list[tuple[Path, re.Match[str]]]) -> Path:
    """The one file of a split's images or labels."""
    found = [path for path, match in of if match[2] in split and match[3] == what]
    listed = ', '.join(path.name for path in found) or 'none'
    pattern = ' or '.join(f'[NAME-]{name}-{what}-idx{3 if what == "images" else 1}-ubyte[.gz]' for name in split)
    ok = len({path.name.removesuffix('.gz') for path in found}) == 1
    require(ok, 'dataset', f'idx:{asked} must hold exactly one file {pattern}; found: {listed}')
    return found[0]


def _read_file(path: Path, md5: str | None) -> np.ndarray:
    """Reads one IDX file, plain or gzipped (yann.lecun.com/exdb/mnist describes the format)."""
    with reading(str(path)):
        content = path.read_bytes()
        content = gzip.decompress(content) if content[:2] == b'\x1f\x8b' else content
    # Magic number: two zero bytes, the type and the number of dimensions.
    ok = len(content) >= 4 and content[:2] == b'\0\0' and content[2] in TYPES and content[3]
    require(ok, 'dataset', f'{path} is no IDX file: it starts with {content[:4].hex()!r}')
    header, dtype = 4 + 4 * content[3], np.dtype(TYPES[content[2]])
    short = f'{len(content)} bytes, its header alone has {header}'
    require(len(content) >= header, 'dataset', f'{path} is truncated: {short}')
    shape = struct.unpack(f'>{content[3]}I', content[4:header])
    size = len(content) - header
    other = f'its header says {shape}, it holds {size} bytes'
    ok = size == np.prod(shape, dtype=object) * dtype.itemsize
    require(ok, 'dataset', f'{path} is truncated or too long: {other}')
    ok = not md5 or hashlib.md5(content, usedforsecurity=False).hexdigest() == md5
    require(ok, 'dataset', f'{path} is damaged: its MD5 is not {md5}; install bsgap again')
    return np.frombuffer(content, dtype, offset=header).reshape(shape).astype(dtype.newbyteorder('='), copy=False)
