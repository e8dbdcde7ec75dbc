"""What earlier processes have compiled, found in the compiler's cache without tracing it again.

The compiler knows a block by its graph, which takes seconds to trace. Here its key is what it is made of: the vector
field's graph, this package's source, the compiler and its settings, and what the caller says.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.fx import Graph, GraphModule

from node_cli.ode.graphs.field_graph import FieldGraph
from node_cli.ode.graphs.lowering import Lowered

log = logging.getLogger(__name__)


def _source_code() -> str | None:
    """A digest of all that turns a vector field into a graph; None: the files are not there."""
    package = Path(__file__).parents[1]
    paths, digest = sorted(package.rglob("*.py")), hashlib.sha256()
    for path in paths:
        digest.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest() if paths else None


FOLDER = "node_cli"  # in the compiler's cache
SOURCE = _source_code()  # by now, as it is imported


def key_of(field: FieldGraph, what: str | None) -> str | None:
    """The name of what is made of a vector field, the same in all processes; None: nothing of it is remembered."""
    from torch._functorch import config as functorch
    from torch._guards import TracingContext, tracing
    from torch._inductor import config
    from torch._inductor.codecache import FxGraphCache

    has_cache = field.y.device.type == "cpu" and config.fx_graph_cache and not config.force_disable_caches
    if not (has_cache and what and field.description and SOURCE):
        return None
    made_of: Any = {
        "field": field.description,
        "is_short": field.is_short,
        "what": what,
        "source": SOURCE,
        "dtype": torch.get_default_dtype(),
        "functorch": functorch.save_config_portable(),
    }
    nothing = GraphModule(torch.nn.Module(), Graph())
    try:
        with tracing(TracingContext(field.y.fake_mode)), config.patch(cpp_wrapper=True):
            key, _ = FxGraphCache.prepare_key(nothing, [field.y, *field.inputs], made_of, [], remote=False)
    except Exception as error:  # what the compiler stumbles over has no common class; without a key, all is traced
        log.debug("no key", exc_info=error)
        return None
    return key and key[0]


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
    place = _place(key)
    own = place.with_suffix(f".{os.getpid()}")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        own.write_text(json.dumps(noted), encoding="utf-8")
        own.replace(place)
    except OSError:  # a full disk, say: other processes trace it again
        with suppress(OSError):
            own.unlink()


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
    except Exception as error:  # as in `key_of`
        log.debug("nothing is loaded", exc_info=error)
        return None


def _is_place(value: object) -> bool:
    return isinstance(value, list) and [type(each) for each in value] == [int, int]


def _place(key: str) -> Path:
    from torch._inductor.codecache import cache_dir

    return Path(cache_dir(), FOLDER, f"{key}.json")
