"""What a dataset is made of."""

from typing import Any, NamedTuple


class Split(NamedTuple):
    """Examples: `images_NxHxWxC` uint8 from 0 to 255, `labels_N` int32 from 0 to the number of classes − 1."""

    images_NxHxWxC: Any
    labels_N: Any
