"""What `configs/model/` names for series: for labels where a task offers `num_outputs`, else for forecasts."""

from __future__ import annotations

from node_cli.models.sequences.cde import CdeEncoder
from node_cli.models.sequences.encoder import RecurrentEncoder
from node_cli.models.sequences.gru_d import GruDEncoder
from node_cli.models.sequences.labels import Readout
from node_cli.models.sequences.ode_rnn import OdeRnnCell, OdeRnnEncoder
from node_cli.models.series.gru import Gru
from node_cli.models.series.ode_rnn import OdeRnn
from node_cli.models.series.parts.networks import refuse_inputs
from node_cli.ode.base import Solver
from node_cli.ode.gradients import Gradient
from node_cli.series import LabelModel, SeriesModel

UNUSED_IN_FORECASTS = dict.fromkeys(("readout", "noise", "dropout"), "in forecasts: take a task of labels")


def gru(
    *,
    num_channels: int,
    num_controls: int,
    num_statics: int,
    num_outputs: int | None = None,
    width: int,
    readout: str,
    noise: float,
    dropout: float,
) -> LabelModel | SeriesModel:
    """A GRU; see `RecurrentEncoder`, `Readout` and `Gru`."""
    if num_outputs is None:
        model = Gru(num_channels=num_channels, num_controls=num_controls, num_statics=num_statics, width=width)
        model.unused = UNUSED_IN_FORECASTS
        return model
    encoder = RecurrentEncoder(num_channels=num_channels, num_inputs=num_controls + num_statics, width=width)
    return Readout(encoder, num_outputs=num_outputs, readout=readout, noise=noise, dropout=dropout)


def gru_d(
    *,
    num_channels: int,
    num_controls: int,
    num_statics: int,
    num_outputs: int,
    width: int,
    readout: str,
    noise: float,
    dropout: float,
) -> LabelModel:
    """A GRU-D; see `GruDEncoder` and `Readout`."""
    encoder = GruDEncoder(num_channels=num_channels, num_inputs=num_controls + num_statics, width=width)
    return Readout(encoder, num_outputs=num_outputs, readout=readout, noise=noise, dropout=dropout)


def ode_rnn(
    *,
    num_channels: int,
    num_controls: int,
    num_statics: int,
    num_outputs: int | None = None,
    solver: Solver,
    gradient: Gradient,
    width: int,
    hidden_width: int,
    num_hidden_layers: int,
    activation: str,
    readout: str,
    noise: float,
    dropout: float,
) -> LabelModel | SeriesModel:
    """An ODE-RNN; see `OdeRnnEncoder`, `Readout` and `OdeRnn`, which reads no controls and statics."""
    if num_outputs is None:
        refuse_inputs("ode_rnn", num_controls, num_statics)
    cell = OdeRnnCell(
        num_channels=num_channels,
        num_inputs=num_controls + num_statics,
        solver=solver,
        gradient=gradient,
        width=width,
        hidden_width=hidden_width,
        num_hidden_layers=num_hidden_layers,
        activation=activation,
    )
    if num_outputs is None:
        model = OdeRnn(cell, num_channels=num_channels)
        model.unused = UNUSED_IN_FORECASTS
        return model
    return Readout(OdeRnnEncoder(cell), num_outputs=num_outputs, readout=readout, noise=noise, dropout=dropout)


def cde(
    *,
    num_channels: int,
    num_controls: int,
    num_statics: int,
    num_outputs: int,
    solver: Solver,
    gradient: Gradient,
    width: int,
    hidden_width: int,
    num_hidden_layers: int,
    activation: str,
    control: str,
    counts: bool,
    sees_path: bool,
    readout: str,
    noise: float,
    dropout: float,
) -> LabelModel:
    """A neural CDE; see `CdeEncoder` and `Readout`."""
    encoder = CdeEncoder(
        num_channels=num_channels,
        num_inputs=num_controls + num_statics,
        solver=solver,
        gradient=gradient,
        width=width,
        hidden_width=hidden_width,
        num_hidden_layers=num_hidden_layers,
        activation=activation,
        control=control,
        counts=counts,
        sees_path=sees_path,
    )
    return Readout(encoder, num_outputs=num_outputs, readout=readout, noise=noise, dropout=dropout)
