"""Random changes of sound files and words, the same in every run."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

same_every_time = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)


def mutations(content: bytes) -> st.SearchStrategy[bytes]:
    """`content` with a few bytes changed, cut out or put in; never `content` itself."""
    place = st.integers(0, len(content))
    step = st.one_of(
        st.tuples(st.just("change"), place, st.binary(min_size=1, max_size=4)),
        st.tuples(st.just("insert"), place, st.binary(min_size=1, max_size=20)),
        st.tuples(st.just("cut"), place, st.integers(1, 200)),
        st.tuples(st.just("end"), place, st.none()),
    )
    changed = st.lists(step, min_size=1, max_size=4).map(lambda steps: _changed(content, steps))
    return changed.filter(lambda mutated: mutated != content)


def _changed(content: bytes, steps: list) -> bytes:
    for kind, place, value in steps:
        if kind == "change":
            content = content[:place] + value + content[place + len(value) :]
        elif kind == "insert":
            content = content[:place] + value + content[place:]
        else:
            content = content[:place] + (content[place + value :] if kind == "cut" else b"")
    return content
