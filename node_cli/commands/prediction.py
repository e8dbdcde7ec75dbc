"""One command of predictions: a run read back, its data or new ones, a file."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from node_cli.advice import in_keys
from node_cli.batch import Batch, concatenate, num_samples, take
from node_cli.config import ConfigError
from node_cli.datasets.array_labels import other_arrays, with_targets
from node_cli.datasets.npz_file import array_names, opened_arrays
from node_cli.datasets.rows import read_rows
from node_cli.datasets.series.own_arrays import KNOWN, NAMES, names_of_series
from node_cli.datasets.series.own_table import read_new_series
from node_cli.figures import file_of
from node_cli.files import kind_of, write_whole
from node_cli.loaded_run import Run
from node_cli.ode.solution import SolveError
from node_cli.runs.outcome import RunFailedError, UnwrittenRunError
from node_cli.runs.prediction_file import WRITERS, write_predictions
from node_cli.tasks.task import FAILED
from node_cli.training.machine import set_num_threads


def run_prediction(config: dict[str, Any]) -> None:
    """Writes the file that `out` names and the figures beside it, and prints what they are.

    Raises:
        ConfigError: there is no such run, `out` cannot be written, or the data are not like those of the run.
        RunFailedError: the solve of every sample failed.
        UnwrittenRunError: the disk is full, say.
    """
    out = Path(config["out"])
    _check_out(out)
    is_new = config["split"] is None and "dataset" in config
    set_num_threads(config["num_threads"])
    run = Run({key: value for key, value in config.items() if not (is_new and key == "dataset")})
    if config["samples"] is not None and run.task.band_samples is None:
        _require_effect(config, is_given={"figures": not config["figures"], "dataset": "dataset" in config})
        _write_samples(config, run, out)
        return
    if config["samples"] is not None:
        _require_bands(config, run)
    written = _Written(run, is_in_memory=not is_new)
    size = config["batch_size"] or run.batch_size
    if is_new:
        batches, names = _new_batches(Path(config["dataset"]["path"]), size, run)
    else:
        split = config["split"] or "test"
        dataset = run.dataset()
        batches, names = dataset.batches(split, size), dataset.sample_names.get(split)
    if config["until"] is not None:
        batches = _extended(batches, run, config["until"])
    try:
        count = write_predictions(out, written.tables(batches, names, is_text=out.suffix == ".csv"), run.task.row_names)
        figures = written.figures(out, names or ()) if config["figures"] else []
    except SolveError as error:
        raise RunFailedError(in_keys(error)) from error
    except OSError as error:
        raise UnwrittenRunError(f"{out} could not be written: {error.strerror}") from error
    failed = f", {written.num_failed:,} without a prediction (failed solves)" if written.num_failed else ""
    rows = "" if count == written.num_samples else f", {count:,} rows"
    samples = "1 sample" if written.num_samples == 1 else f"{written.num_samples:,} samples"
    lines = [*run.notes, f"{out}: {samples}{rows}{failed}"]
    if figures:
        some = f" of the first {written.num_shown:,} samples" if written.num_shown < written.num_samples else ""
        lines.append(f"figures{some}: {', '.join(figures)}")
    sys.stdout.write("\n".join(lines) + "\n")


def _require_effect(config: dict[str, Any], is_given: Mapping[str, bool]) -> None:
    """Raises ConfigError where new samples are asked for, and something of data with them."""
    asked = {**is_given, **{name: config[name] is not None for name in ("split", "until")}}
    idle = [name for name, given in asked.items() if given]
    if idle:
        raise ConfigError(f"{', '.join(idle)} has no effect with samples=..., which are new: leave it out")


def _require_bands(config: dict[str, Any], run: Run) -> None:
    """Bands of so many samples from now on."""
    idle = [name for name, given in (("label", config["label"] is not None), ("seed", config["seed"] != 0)) if given]
    if idle:
        raise ConfigError(f"{', '.join(idle)} has no effect on samples that bands are made of: leave it out")
    try:
        run.draw_bands_from(config["samples"])
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _write_samples(config: dict[str, Any], run: Run, out: Path) -> None:
    count, label = config["samples"], None if config["label"] is None else str(config["label"])
    try:
        drawn = run.drawn(count, label, config["seed"], config["batch_size"])
        write_predictions(out, drawn, run.task.row_names)
    except SolveError as error:
        raise RunFailedError(in_keys(error)) from error
    except ValueError as error:
        raise ConfigError(str(error)) from error
    except OSError as error:
        raise UnwrittenRunError(f"{out} could not be written: {error.strerror}") from error
    sys.stdout.write("\n".join([*run.notes, f"{out}: {count:,} new samples"]) + "\n")


class _Written:
    """Passes predictions on as tables, and remembers what is said and drawn of them."""

    def __init__(self, run: Run, *, is_in_memory: bool) -> None:
        self._run = run
        self._is_in_memory = is_in_memory
        self.num_samples = self.num_failed = 0
        self._kept: list[tuple[Batch, Batch]] = []  # for the figures; of data that are read as they come one batch

    @property
    def num_shown(self) -> int:
        """Samples in the figures."""
        return sum(num_samples(batch) for batch, _ in self._kept)

    def tables(
        self, batches: Iterator[Batch], names: Sequence[str] | None, *, is_text: bool
    ) -> Iterator[Mapping[str, np.ndarray]]:
        """What is written for each batch; into a text, the table of the task, if it has one.

        Samples that have no `names` are numbered.
        """
        width = f"<U{max(map(len, names or ('',)))}"  # as many characters in every batch
        for batch, rows in self._run.rows(batches):
            if self._is_in_memory or not self._kept:
                self._kept.append((batch, rows))
            self.num_failed += int(rows[FAILED].sum())
            start, self.num_samples = self.num_samples, self.num_samples + num_samples(batch)
            places = range(start, self.num_samples)
            called = [str(number) if names is None else names[number] for number in places]
            table = self._run.task.table(batch, rows, called) if is_text else None
            if table is None:
                table = self._run.table(batch, rows)
                table = {"series": np.array(called, width), **table} if names and any(names) else table
            yield table

    def figures(self, out: Path, names: Sequence[str]) -> list[str]:
        """Draws the task's figures beside the file, of samples that are called `names`; the names of the files."""
        batch, rows = (concatenate(parts) for parts in zip(*self._kept, strict=True))
        run = self._run
        is_whole = batch.keys() == run.data.samples.keys()
        task = run.task
        drawn = task.figures(run.model, batch, rows, names) if is_whole else task.prediction_figures(batch, rows, names)
        paths = {out.with_name(f"{out.stem}_{name}.png"): figure for name, figure in drawn.items()}
        for path, figure in paths.items():
            write_whole(path, file_of(figure))
        return [str(path) for path in paths]


def _extended(batches: Iterator[Batch], run: Run, until: float | str) -> Iterator[Batch]:
    try:
        for batch in batches:
            yield run.task.extended(batch, until)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _new_batches(path: Path, size: int, run: Run) -> tuple[Iterator[Batch], Sequence[str] | None]:
    """The samples of a file, prepared as the run's own were, and what they are called."""
    offers, keys = run.data.offers, run.config["dataset"]
    names: Sequence[str] | None = None
    try:
        if not {"units", "column_names"} & offers.keys() or path.suffix == ".npz":
            return _of_arrays(path, size, run), names_of_series(path) if "units" in offers else None
        if "column_names" in offers:
            batch = run.prepared({"inputs": read_rows(str(path), offers["column_names"], keys.get("delimiter")).values})
        else:
            table = read_new_series(str(path), offers, keys)
            batch, names = run.prepared(table.arrays()), table.names
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error
    return (take(batch, slice(start, start + size)) for start in range(0, num_samples(batch), size)), names


def _of_arrays(path: Path, size: int, run: Run) -> Iterator[Batch]:
    label = run.config["dataset"].get("label")
    known = list(dict.fromkeys([*run.data.samples, *(KNOWN if "units" in run.data.offers else ())]))
    try:
        names = array_names(path)
        unread = [*other_arrays(str(path), names, known, label), *(name for name in names if name.endswith("_columns"))]
        with opened_arrays(path, names, unread) as arrays:
            for number, raw in enumerate(arrays.batches(size)):
                raw.pop(NAMES, None)
                try:
                    yield run.prepared(with_targets(raw, label))
                except ValueError as error:
                    where = f"samples {number * size} to {min((number + 1) * size, arrays.num_samples) - 1}"
                    raise ValueError(f"dataset.path: {path}, {where}: {error}") from error
    except (ValueError, FileNotFoundError) as error:
        raise ConfigError(str(error)) from error


def _check_out(out: Path) -> None:
    if out.suffix not in WRITERS:
        raise ConfigError(f"out must end in {' or '.join(WRITERS)}, got {out}")
    if not out.parent.is_dir():
        raise ConfigError(f"out={out} cannot be written: {out.parent} is not a folder")
    taken = [path for path in (out, *sorted(out.parent.glob(f"{out.stem}_*.png"))) if kind_of(path) is not None]
    if taken:
        raise ConfigError(f"out={out}: {taken[0]} exists already: remove it, or set another out")
