"""How the groups of a figure are told apart: by a style each, or, where they are many, by the values of a key."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from textwrap import wrap
from typing import Any

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from node_cli.runs.report.grouping import Group
from node_cli.runs.report.reading import is_number

MOST_ENTRIES = 20  # of a legend: more can no longer be told apart, and do not fit beside a panel
LONGEST = 40  # characters of a line beside the panels
LINES = ("-", "--", "-.", ":")  # lines on top of each other can be seen
NUM_COLORS = 10
MARKERS = ("o", "s", "^", "D")
OTHERS = "#b0b0b0"
GREY = "#505050"
DECADES = 30.0  # from this ratio on a scale is logarithmic
SCALE = colormaps["viridis"]


@dataclass(frozen=True)
class Style:
    """Of a line or a point."""

    color: str = GREY
    line: str = "-"
    marker: str = "o"


@dataclass
class Styles:
    """A style for each group, and the legend or the colour scale that explains them beside the panels."""

    of_groups: list[Style]
    title: str = ""
    entries: dict[str, Style] = field(default_factory=dict)
    scale: ScalarMappable | None = None
    left_out: Sequence[str] = ()  # keys that the figure does not show

    def of(self, drawn: Collection[int]) -> Styles:
        """The same, without entries for groups that are not drawn."""
        hidden = [style for index, style in enumerate(self.of_groups) if index not in drawn]
        shown = [self.of_groups[index] for index in drawn]
        kept = {label: own for label, own in self.entries.items() if own in shown or own not in hidden}
        return replace(self, entries=kept)

    def explain(self, figure: Figure, panels: Sequence[Any], *, lines: bool) -> None:
        """Puts the legend or scale to the right of the panels; the figure grows by its width."""
        width, height = figure.get_size_inches()
        if self.scale is not None:
            figure.colorbar(self.scale, ax=list(panels), label=self.title, fraction=0.6 / width, pad=0.02)
            width += 0.9
        if self.entries:
            legend = figure.legend(
                [_handle(style, lines=lines) for style in self.entries.values()],
                ["x"] * len(self.entries),  # a label of the user's may begin with "_", or hold "$"
                title=_wrapped(self.title if self.scale is None else ""),
                loc="outside right upper",
                fontsize=8,
                title_fontsize=8,
                frameon=False,
                alignment="left",
            )
            for line, label in zip(legend.get_texts(), self.entries, strict=True):
                line.set(text=_wrapped(label), parse_math=False)
            legend.get_title().set_parse_math(False)
            size = legend.get_window_extent(FigureCanvasAgg(figure).get_renderer())
            width += size.width / figure.dpi + 0.2
            height = max(height, size.height / figure.dpi + 0.4)
        figure.set_size_inches(width, height)


def _handle(style: Style, *, lines: bool) -> Line2D:
    own: dict[str, Any] = {"linestyle": style.line} if lines else {"linestyle": "", "marker": style.marker}
    return Line2D([], [], color=style.color, markersize=5, **own)


def _wrapped(label: str) -> str:
    """Over at most three lines: a longer label is cut in the middle."""
    lines = wrap(label, LONGEST) or [label]
    return "\n".join(lines if len(lines) <= 3 else [lines[0], "...", lines[-1]])


def styles_of(groups: Sequence[Group]) -> Styles:
    """A style for each group while they can be told apart; else styles by the first keys that differ."""
    keys = [key for key in groups[0].keys if len({group.key_text(key) for group in groups}) > 1]
    num_values = len({group.key_text(key) for group in groups for key in keys[:1]})
    are_many = len(keys) == 1 or len(groups) > MOST_ENTRIES
    is_numeric = all(is_number(group.keys[key]) and isfinite(group.keys[key]) for key in keys[:1] for group in groups)
    if num_values > NUM_COLORS and are_many and is_numeric:
        return _by_scale(groups, keys[0], keys[1:])
    if len(groups) <= MOST_ENTRIES:
        styles = [_numbered(index) for index in range(len(groups))]
        labels = [", ".join(group.key_text(key) or "-" for key in keys) or group.label() for group in groups]
        labels = [each if labels.count(each) == 1 else f"{each} ({n})" for n, each in enumerate(labels, 1)]
        return Styles(styles, ", ".join(keys), dict(zip(labels, styles, strict=True)))
    return _by_value(groups, keys)


def _numbered(index: int) -> Style:
    """Ten colours; lines and markers go on, so that twenty are twenty."""
    color = to_hex(colormaps["tab10"](index % NUM_COLORS))
    return Style(color, LINES[index % len(LINES)], MARKERS[index // NUM_COLORS % len(MARKERS)])


def _by_scale(groups: Sequence[Group], key: str, others: Sequence[str]) -> Styles:
    numbers = [float(group.keys[key]) for group in groups]
    norm = LogNorm if is_wide(numbers) else Normalize
    scale = ScalarMappable(norm(min(numbers), max(numbers)), SCALE)
    own = [Style(to_hex(scale.to_rgba(number))) for number in numbers]  # type: ignore[arg-type]
    return Styles(own, key, scale=scale, left_out=others)


def _by_value(groups: Sequence[Group], keys: Sequence[str]) -> Styles:
    """Colours for the values of the first key, lines and markers for those of the second, if they are few."""
    of_first, of_second = ([_named(group, key) for group in groups] for key in (keys[0], keys[1 % len(keys)]))
    colors = {name: Style(_numbered(n).color) for n, name in enumerate(dict.fromkeys(of_first)) if n < NUM_COLORS}
    shapes = {
        name: Style(GREY, LINES[n], MARKERS[n]) for n, name in enumerate(dict.fromkeys(of_second)) if n < len(LINES)
    }
    others = {f"{num} others": Style(OTHERS)} if (num := len(set(of_first)) - len(colors)) else {}
    if len(keys) == 1 or set(of_second) != set(shapes):
        shapes = {}
    own = [
        replace(shapes.get(second, Style()), color=colors.get(first, Style(OTHERS)).color)
        for first, second in zip(of_first, of_second, strict=True)
    ]
    return Styles(own, "", colors | others | shapes, left_out=keys[2 if shapes else 1 :])


def _named(group: Group, key: str) -> str:
    return f"{key}={group.key_text(key) or '-'}"


def is_wide(numbers: Sequence[float]) -> bool:
    """Whether they are best shown on a logarithmic scale."""
    return len(numbers) > 0 and min(numbers) > 0 and max(numbers) >= DECADES * min(numbers)
