"""Formulas with numbers in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def filled(line: str, values: Mapping[str, float]) -> str:
    """A formula with numbers in the places of its parameters, `{alpha}`."""
    for name, value in values.items():
        line = line.replace(f"{{{name}}}", f"{value:.4g}")
    return line.replace("+ -", "- ").replace("- -", "+ ").removeprefix("--")


def joined(coefficients: Sequence[float], terms: Sequence[str]) -> str:
    """A sum of terms, those left out whose coefficient is 0; `1` stands for the constant."""
    parts = [
        f"{coefficient:.4g}" if term == "1" else f"{coefficient:.4g} {term}"
        for coefficient, term in zip(coefficients, terms, strict=True)
        if coefficient
    ]
    return " + ".join(parts).replace("+ -", "- ") or "0"
