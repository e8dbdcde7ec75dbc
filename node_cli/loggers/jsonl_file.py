"""What stands in metrics.jsonl, read back. Needs no torch."""

from __future__ import annotations

import json
from pathlib import Path

from node_cli.files import read_bytes

FILE_NAME = "metrics.jsonl"
MAX_BYTES = 1 << 30  # a million lines have some 300 million


def read_records(folder: Path) -> list[dict[str, float]]:
    """What a run has logged, a record for each whole line of its `metrics.jsonl`.

    Raises:
        ValueError: there is no such file, it cannot be read, or a line is not one of ours.
    """
    path = folder / FILE_NAME
    if not path.exists():
        raise ValueError(f"{path} does not exist: the run kept no records of this kind (logger=jsonl)")
    return [record for _, record in lines_of(path)]


def numbers_of(line: bytes) -> dict[str, float] | None:
    """The values of a line, also those written as text ("nan"); None if it is damaged. It has a step."""
    try:
        record = {str(tag): float(value) for tag, value in json.loads(line).items()}
        int(record["step"]), int(record.get("epoch", -1))
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    return record


def lines_of(path: Path) -> list[tuple[bytes, dict[str, float]]]:
    """All lines, but a last one cut short by a kill, with their values."""
    try:
        whole = read_bytes(path, MAX_BYTES, inside=path.parent).split(b"\n")[:-1]
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}") from error
    found = []
    for number, line in enumerate(whole, 1):
        record = numbers_of(line)
        if record is None:
            raise ValueError(
                f"{path}, line {number}: expected a JSON object with a step, got "
                f"{line[:60].decode(errors='backslashreplace')!r}; mend or remove the line, then resume"
            )
        found.append((line, record))
    return found
