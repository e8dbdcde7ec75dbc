"""A trained run, read back: its model, its data and what it logged; predictions in the units of the user."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from node_cli.batch import Batch, concatenate, independent_generator, num_samples, take, to_device
from node_cli.build import build_dataset, build_model, build_solver
from node_cli.config import ConfigError
from node_cli.datasets.dataset import Dataset
from node_cli.datasets.spec import DataSpec
from node_cli.latent import LatentModel
from node_cli.loggers.jsonl_file import read_records
from node_cli.models.ode_block import ode_blocks
from node_cli.runs.folder import RunFolder
from node_cli.runs.identity import RUN, check_data, spec_in
from node_cli.runs.moved_data import data_moved
from node_cli.runs.trained_run import checkpoint_of_run, config_of_run, take_weights
from node_cli.series import visible
from node_cli.training.evaluation import autocast, predictions


class Run:
    """A run, read back by `load_run`.

    Attributes:
        path: the run folder.
        config: what the run was trained with, as plain containers; its data are looked for where they are today.
        model: the network with its weights, in evaluation mode. It takes what the dataset's batches hold, scaled
            inputs say; `predict` takes raw ones.
        task: loss, predictions and metrics.
        data: what the model knows of its dataset: class names, the shape of a sample, how inputs are scaled.
        notes: a line for each thing that is not known, or is elsewhere.
    """

    def __init__(self, command: dict[str, Any]) -> None:
        """As `load_run`, of the config of a command: `run`, `checkpoint`, `packages`, `device`, `num_threads`.

        Perhaps also `dataset`, which says where the data of the run are now, and `solver`, another one.
        """
        self._folder = RunFolder.of(command["run"])
        self.path = self._folder.path
        self.config = config_of_run(command, is_moved="dataset" in command)
        self._checkpoint, self._payload, note = checkpoint_of_run(command)
        self.notes = [line for line in (*data_moved(self.config, self._folder), note) if line]
        self.data = self._spec()
        with torch.random.fork_rng(devices=[]):
            self.model, self.task = build_model(self.config, self.data.offers)
        take_weights(self.model, self._checkpoint, self._payload)
        self._payload = {RUN: self._payload.get(RUN)}  # the state of its optimizer is as large again
        if "solver" in command:
            solver = build_solver(command)
            self.require_solves()
            for block in ode_blocks(self.model).values():
                block.solver = solver
        self.model.eval()

    @property
    def summary(self) -> dict[str, Any] | None:
        """`summary.json`: metrics, NFE, seconds, versions; None of a run that has not finished."""
        return self._folder.read_summary()

    @property
    def metrics(self) -> list[dict[str, float]]:
        """All values that the run logged, in order: a row for each time, with its `step` and the values by tag.

        `pandas.DataFrame(run.metrics)` makes a table of it.

        Raises:
            ConfigError: the run kept no metrics.jsonl (logger=jsonl), or it is damaged.
        """
        try:
            return read_records(self.path)
        except ValueError as error:
            raise ConfigError(str(error)) from error

    def dataset(self) -> Dataset:
        """The data that the run was trained with: splits of tensors as its model sees them.

        Raises:
            ConfigError: they are no longer where they were, or not the same.
        """
        self.task.choose(self.model, self._found.splits["train"])
        return self._found

    @cached_property
    def _found(self) -> Dataset:
        dataset = build_dataset(self.config)
        check_data(self._checkpoint, self._payload, self.config, dataset.digest)
        return dataset

    def predict(self, inputs: Any, batch_size: int | None = None) -> dict[str, np.ndarray]:
        """Predictions for raw inputs: in the units, and of the kind, that the training data had before any scaling.

        Args:
            inputs: an array or a tensor, samples first; or several by name, for a task that reads more than one.
            batch_size: samples at once; None: as many as the run evaluated at once.

        Returns:
            Arrays by name, a row a sample: of a classification `class` (by name) and `probability`. `failed` marks
            the samples whose solve failed.

        Raises:
            ValueError: inputs of another shape or kind than those that the run was trained on.
            SolveError: the solve of every sample failed.
        """
        if not isinstance(inputs, Mapping):
            inputs = {(self.task.inputs or tuple(self.data.samples))[0]: inputs}
        tables = [self.table(*pair) for pair in self.rows(self._pieces(self.prepared(inputs), batch_size))]
        return {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}

    def forecast(
        self, inputs: Mapping[str, Any], until: float | str, samples: int | None = None, batch_size: int | None = None
    ) -> dict[str, np.ndarray]:
        """As `predict`, for raw series that go on to `until`, a number or a date; arrays are `(n, T, ...)`.

        Of a latent model there are the ends of a band of 90 % too, `low` and `high`, made of so many `samples` of the
        posterior; None: as many as the run evaluated.

        Raises:
            ValueError: as `predict`, or the task has no times, or not until then, or no bands.
        """
        if samples is not None:
            self.draw_bands_from(samples)
        pieces = self._pieces(self.task.extended(self.prepared(inputs), until), batch_size)
        rows = concatenate([rows for _, rows in self.rows(pieces)])
        return {name: self._named(name, rows[name]) for name in rows if name not in self.task.hidden_rows}

    def encode(self, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The posterior of the latent state of raw series at their first times: arrays `mean` and `std`, `(n, L)`.

        Raises:
            ValueError: as `predict`, or the model has no latent state.
        """
        if not isinstance(self.model, LatentModel):
            raise ValueError(f"{type(self.model).__name__} of this run has no latent state to encode series into")
        weights = next(self.model.parameters())
        dtype = torch.float64 if weights.dtype == torch.float64 else None
        batch = to_device(self.prepared(inputs), weights.device, dtype)
        with torch.no_grad(), autocast(weights.device, self.config["precision"]):
            posterior = self.model.posterior(visible(batch))
        return {name: tensor.float().numpy(force=True) for name, tensor in posterior._asdict().items()}

    def draw_bands_from(self, samples: int) -> None:
        """Bands of predictions are made of so many samples from now on.

        Raises:
            ValueError: the predictions of the run have no bands, or there are too few samples for one.
        """
        if self.task.band_samples is None or not isinstance(self.model, LatentModel):
            raise ValueError(f"samples={samples}: the model of this run has no samples to make bands of, leave it out")
        if type(samples) is not int or samples < 2:
            raise ValueError(f"samples must be at least 2 for a band, got {samples}")
        self.task.band_samples = samples

    def log_prob(self, inputs: Any, batch_size: int | None = None) -> np.ndarray:
        """The log-density of raw inputs `(n,)`, in nats and in their units; see `predict`.

        Raises:
            ValueError: as `predict`, or the task of the run gives none.
        """
        found = self.predict(inputs, batch_size)
        if "log_prob" not in found:
            raise ValueError(f"the task of this run gives no log-densities, but {', '.join(found)}")
        return found["log_prob"]

    def sample(self, count: int, *, label: str | None = None, seed: int = 0) -> np.ndarray:
        """New samples `(count, ...)` in the units of the training data; `label` is the name of a class.

        Raises:
            ValueError: the task of the run has none, or not of such a class.
            SolveError: a solve failed.
        """
        pieces = [rows["sample"] for rows in self.drawn(count, label, seed)]
        return np.concatenate(pieces)

    def drawn(
        self, count: int, label: str | None, seed: int, batch_size: int | None = None
    ) -> Iterator[dict[str, np.ndarray]]:
        """New samples as arrays by name, a batch at a time."""
        if type(count) is not int or count < 1:
            raise ValueError(f"samples must be a whole number, 1 or more, got {count}")
        size = batch_size or self.batch_size
        device = next(self.model.parameters()).device
        for number, start in enumerate(range(0, count, size)):
            generator = independent_generator(seed, number)
            with torch.no_grad(), autocast(device, self.config["precision"]):
                rows = self.task.samples(self.model, min(size, count - start), generator, label)
            yield {name: self._named(name, tensor) for name, tensor in rows.items()}

    def _pieces(self, batch: Batch, batch_size: int | None) -> Iterator[Batch]:
        size = batch_size or self.batch_size
        return (take(batch, slice(start, start + size)) for start in range(0, num_samples(batch), size))

    @property
    def batch_size(self) -> int:
        """Samples that the run evaluated at once."""
        return int(self.config["trainer"]["eval_batch_size"])

    def prepared(self, raw: Mapping[str, Any]) -> Batch:
        """Raw arrays or tensors by name, as the model sees them; what the task does not read may be left out.

        Raises:
            ValueError: one is missing, unknown, or not like those that the run was trained on.
        """
        batch = self.data.prepared(raw, self.task.inputs)
        for name in batch.keys() & self.task.row_names.keys():
            values, count = batch[name], len(self.task.row_names[name])
            wrong = values[(values < 0) | (values >= count)]
            if len(wrong):
                raise ValueError(
                    f"{name} must be from 0 to {count - 1}, the names that there are, got {wrong[0].item()}"
                )
        return batch

    def rows(self, batches: Iterable[Batch]) -> Iterator[tuple[Batch, Batch]]:
        """Prepared batches with what the task predicts for them, `failed` included; no more than one is held.

        Raises:
            SolveError: the solve of every sample failed.
        """
        held: list[Batch] = []  # more than one only while no sample at all was solved
        weights = next(self.model.parameters())

        def watched() -> Iterator[Batch]:
            for batch in batches:
                held.append(to_device(batch, weights.device, torch.float64 if weights.dtype == torch.float64 else None))
                yield held[-1]

        for rows in predictions(self.model, self.task, watched(), self.config["precision"], marks_failed=True):
            yield concatenate(held), rows
            held.clear()

    def table(self, batch: Batch, rows: Batch) -> dict[str, np.ndarray]:
        """What is shown of predictions: arrays by name, whole numbers that have names by these."""
        idle = {name: tensor for name, tensor in batch.items() if name not in (self.task.inputs or batch)}
        shown = {**rows, **idle}
        return {name: self._named(name, shown[name]) for name in shown if name not in self.task.hidden_rows}

    def _named(self, name: str, tensor: Tensor) -> np.ndarray:
        names = self.task.row_names.get(name)
        values: np.ndarray = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(force=True)
        if names is None or values.ndim > 1 or values.dtype.kind != "i":
            return values
        named: np.ndarray = np.array([*names, ""])[values]  # -1, for no prediction, is the last one
        return named

    def _spec(self) -> DataSpec:
        """As the checkpoint has it; from the dataset itself, where that says nothing of it."""
        spec = spec_in(self._checkpoint, self._payload)
        if spec is not None:
            return spec
        try:
            return DataSpec.of(self._found)
        except ConfigError as error:
            raise ConfigError(
                f"{self._checkpoint} says nothing of its dataset, so that is needed (an earlier version wrote it, or "
                f"the dataset offers what is not plain): {error}"
            ) from error

    def require_solves(self) -> None:
        """Raises ConfigError where another solver would have nothing to solve."""
        if not ode_blocks(self.model):
            raise ConfigError(
                f"solver: {type(self.model).__name__} of {self.path} has no ODE block to solve: leave it out"
            )


def load_run(
    path: str | os.PathLike[str],
    *,
    checkpoint: str = "best",
    packages: Sequence[str] = (),
    device: str = "auto",
) -> Run:
    """Reads a run back from its folder, or from one of its checkpoint files.

    A folder may come from anybody: nothing of it is called but what a shipped YAML file names.

    Args:
        path: a run folder, or a checkpoint file in one.
        checkpoint: which one of a folder: best (of the validations) or last.
        packages: your own packages that parts of the run may come from.
        device: auto (the best there is), cpu, cuda or mps.

    Raises:
        ConfigError: there is no such run, it is damaged, or a part of it is not to be trusted.
    """
    if checkpoint not in ("best", "last"):
        raise ConfigError(f"checkpoint must be best or last, got {checkpoint!r}")
    command = {"run": os.fspath(path), "checkpoint": checkpoint, "packages": list(packages), "device": device}
    return Run(command | {"num_threads": torch.get_num_threads()})
