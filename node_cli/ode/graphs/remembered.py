"""What earlier processes have compiled, found in the compiler's cache without tracing it again.

The compiler knows a block by its graph, which takes seconds to trace. Here its key is what it is made of: the vector
field's graph, this package's source, the compiler and its settings, and what the caller says.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch.fx import Graph, GraphModule

from node_cli.ode.graphs.field_graph import FieldGraph
from node_cli.ode.graphs.lowering import Lowered

FOLDER = "node_cli"  # in the compiler's cache


def key_of(field: FieldGraph, what: str) -> str | None:
    """By which processes find what one of them has made of a vector field; None: nothing is to be remembered."""
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.codecache import compiled_fx_graph_hash

    is_kept = field.y.device.type == "cpu" and config.fx_graph_cache and not config.force_disable_caches
    if not is_kept or field.description is None or "<" in what or " at 0x" in what:  # a function of somebody's
        return None
    made_of = {"field": field.description, "is_short": field.is_short, "package": _source_code(), "what": what}
    nothing = GraphModule(torch.nn.Module(), Graph())
    try:
        with tracing(TracingContext(field.y.fake_mode)), config.patch(cpp_wrapper=True):
            key, _ = compiled_fx_graph_hash(nothing, [field.y], made_of, [])  # type: ignore[arg-type]
    except Exception:  # what the compiler stumbles over has no common class; without a key, all is traced
        return None
    return str(key)


def recall(key: str | None) -> dict[str, Any]:
    """What was noted; nothing where there is nothing."""
    with suppress(OSError, ValueError):
        found = json.loads(_place(key).read_text(encoding="utf-8")) if key else {}
        return found if isinstance(found, dict) else {}
    return {}


def remember(key: str | None, noted: dict[str, Any]) -> None:
    """Notes it for other processes, whole or not at all."""
    if key is None:
        return
    with suppress(OSError):  # as where there is no room: it is traced again
        place = _place(key)
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(noted, file)
        Path(name).rename(place)


def compiled_earlier(key: str | None, field: FieldGraph) -> Lowered | None:
    """What the compiler's cache has of it, if a process has noted so."""
    noted = recall(key)
    graph, sizes = noted.get("graph"), noted.get("sizes")
    if not (isinstance(graph, str) and re.fullmatch("[a-z0-9]+", graph) and isinstance(sizes, dict)):
        return None
    if not all(name in field.sizes and _is_place(place) for name, place in sizes.items()):
        return None
    places, values = [(i, dim) for i, dim in sizes.values()], [field.sizes[name] for name in sizes]
    try:
        return Lowered.from_cache(graph, places, values, field.y.fake_mode)
    except Exception:  # as in `key_of`
        return None


def _is_place(value: object) -> bool:
    return isinstance(value, list) and [type(each) for each in value] == [int, int]


def _place(key: str) -> Path:
    from torch._inductor.codecache import cache_dir

    return Path(cache_dir(), FOLDER, f"{key}.json")


@cache
def _source_code() -> str:
    """A digest of all that turns a vector field into a graph."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()
