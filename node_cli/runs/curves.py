"""The curves of one run, as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from node_cli.figures import file_of, label_panel, panels
from node_cli.files import write_whole

History = Sequence[Mapping[str, float]]

COLUMNS = 4
NO_PANEL = {"loss", "skipped"}
# A split, or a direction of the solve, looks alike in every panel.
STYLES = {"train": "C0", "val": "C1", "forward": "C2", "backward": "C3"}


def write_curves(history: History, path: Path, title: str) -> None:
    """Draws the loss, every metric of training, with that of validation if there is one, and NFE over the epochs.

    `history` has an entry for each epoch: "epoch" and tags ("train/loss", "val/error", "nfe/forward"). An entry may
    lack a tag; a panel without any data is left out.
    """
    from matplotlib.ticker import MaxNLocator

    drawn = _panels(history)
    assert drawn, f"nothing to draw in {history}"
    figure, all_axes = panels(len(drawn), columns=COLUMNS, size=(4.2, 3.6), title=title)
    for axes, (name, tags) in zip(all_axes, drawn.items(), strict=True):
        for label, tag in tags.items():
            points = [(entry["epoch"], entry[tag]) for entry in history if tag in entry]
            axes.plot(*zip(*points, strict=True), label=label, color=STYLES[label], marker="o", markersize=3)
        label_panel(axes, name, "epoch", "evaluations per pass" if name == "NFE" else "")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    write_whole(path, file_of(figure))


def _panels(history: History) -> dict[str, dict[str, str]]:
    """Panel name -> label -> tag, of what the history holds."""
    tags = {tag for entry in history for tag in entry}
    train, val = ({tag.partition("/")[2] for tag in tags if tag.startswith(f"{split}/")} for split in ("train", "val"))
    names = ["loss", *sorted(train & val - {"loss"}), *sorted(train - val - NO_PANEL)]
    wanted = {name: {split: f"{split}/{name}" for split in ("train", "val")} for name in names}
    wanted["NFE"] = {direction: f"nfe/{direction}" for direction in ("forward", "backward")}
    found = {name: {label: tag for label, tag in panel.items() if tag in tags} for name, panel in wanted.items()}
    return {name: panel for name, panel in found.items() if panel}
