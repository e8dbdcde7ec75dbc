"""Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from node_cli.datasets.assembling import assemble_official
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.download import RemoteFile
from node_cli.datasets.idx import IdxFiles, load_idx

FILES = IdxFiles(
    train_images=RemoteFile(
        "train-images-idx3-ubyte.gz", "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84", 26_421_880
    ),
    train_labels=RemoteFile(
        "train-labels-idx1-ubyte.gz", "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845", 29_515
    ),
    test_images=RemoteFile(
        "t10k-images-idx3-ubyte.gz", "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073", 4_422_102
    ),
    test_labels=RemoteFile(
        "t10k-labels-idx1-ubyte.gz", "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5", 5_148
    ),
)
CLASS_NAMES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def fashion_mnist(
    data_dir: str,
    mirrors: Sequence[str],
    split_seed: int,
    val_fraction: float,
    crop_padding: int,
    flip: bool,
    normalize: bool,
) -> Dataset:
    """60,000 training and 10,000 test images `(1, 28, 28)` of clothing.

    Source: Xiao, Rasul, Vollgraf, Fashion-MNIST, 2017, arXiv 1708.07747.

    Raises:
        ValueError: a file is damaged or a key out of range.
        FileNotFoundError: a file is neither in `data_dir`/fashion_mnist nor to be had.
    """
    train, test = load_idx(FILES, len(CLASS_NAMES), Path(data_dir) / "fashion_mnist", mirrors)
    return assemble_official(train, test, CLASS_NAMES, split_seed, val_fraction, crop_padding, flip, normalize)
