"""MNIST."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from node_cli.datasets.assembling import assemble_official
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.download import RemoteFile
from node_cli.datasets.idx import IdxFiles, load_idx

FILES = IdxFiles(
    train_images=RemoteFile(
        "train-images-idx3-ubyte.gz", "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609", 9_912_422
    ),
    train_labels=RemoteFile(
        "train-labels-idx1-ubyte.gz", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c", 28_881
    ),
    test_images=RemoteFile(
        "t10k-images-idx3-ubyte.gz", "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6", 1_648_877
    ),
    test_labels=RemoteFile(
        "t10k-labels-idx1-ubyte.gz", "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6", 4_542
    ),
)
CLASS_NAMES = tuple(str(digit) for digit in range(10))


def mnist(
    data_dir: str,
    mirrors: Sequence[str],
    split_seed: int,
    val_fraction: float,
    crop_padding: int,
    flip: bool,
    normalize: bool,
) -> Dataset:
    """60,000 training and 10,000 test images `(1, 28, 28)` of handwritten digits.

    Source: LeCun, Bottou, Bengio, Haffner, Gradient-based learning applied to document recognition, Proc. IEEE 1998.

    Raises:
        ValueError: a file is damaged or a key out of range.
        FileNotFoundError: a file is neither in `data_dir`/mnist nor to be had.
    """
    train, test = load_idx(FILES, len(CLASS_NAMES), Path(data_dir) / "mnist", mirrors)
    return assemble_official(train, test, CLASS_NAMES, split_seed, val_fraction, crop_padding, flip, normalize)
