"""Overrides, `key=value` and the like, read by Hydra's own parser, and written. Nothing else takes one apart."""

from __future__ import annotations

import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, OverrideType, Quote, QuotedString, RangeSweep
from hydra.core.override_parser.types import Override as HydraOverride
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from node_cli.config import PLACES, ConfigError, is_path, shown
from node_cli.runs.folder import RunFolder
from node_cli.yaml_file import MAX_DEPTH

MAX_LENGTH = 20_000  # characters of an override
SPECIAL = ("null", "true", "false", "nan", "inf", "auto")  # which Hydra, or a key, takes for something else
PLAIN = re.compile(r"[A-Za-z0-9_./-]*[A-Za-z./-][A-Za-z0-9_./-]*")
PREFIXES = {OverrideType.CHANGE: "", OverrideType.ADD: "+", OverrideType.FORCE_ADD: "++", OverrideType.DEL: "~"}
RUN_KEYS = {"node-train": "resume", "node-eval": "run", "node-audit": "run", "node-predict": "run"}


@dataclass(frozen=True)
class Override:
    """One override; `text` as it was typed, or recorded."""

    text: str
    _parsed: HydraOverride

    @property
    def key(self) -> str:
        """The key that it sets, or the group of which it chooses a file."""
        return self._parsed.key_or_group

    @property
    def prefix(self) -> str:
        """One of "", "+", "++" and "~"."""
        return PREFIXES[self._parsed.type]

    @property
    def value(self) -> Any:
        """What it sets the key to, as Hydra reads it; of a sweep, what Hydra has for that."""
        return self._parsed.value()

    @property
    def raw(self) -> str:
        """What stands behind the first "="; empty if there is none."""
        return self.text.partition("=")[2].strip()

    @property
    def given(self) -> str:
        """The text that it gives its key, without the quotes that it may stand in."""
        return self.value if isinstance(self.value, str) else self.raw

    @property
    def is_sweep(self) -> bool:
        """Whether it has several values, one for each job."""
        return self._parsed.is_sweep_override()

    @property
    def group(self) -> str:
        """The first part of the key."""
        return re.split("[./]", self.key)[0]

    @property
    def is_of_hydra(self) -> bool:
        """Whether it sets a key of Hydra's own."""
        return self.key.startswith(("hydra.", "hydra/"))

    @property
    def is_of_sweep(self) -> bool:
        """Whether it is about a sweep, and not about its jobs."""
        return self.key.startswith(("sweep.", "hydra/launcher", "hydra.launcher"))

    @property
    def element(self) -> str:
        """The prefix, the key and its package: of two overrides with the same one the later counts."""
        return self._parsed.get_key_element()

    def num_jobs(self) -> int:
        """How many jobs it makes of one, without making a list of them; of a pattern, 1."""
        value = self.value
        if isinstance(value, ChoiceSweep):
            return len(value.list)
        if isinstance(value, RangeSweep) and value.step and value.start is not None and value.stop is not None:
            return max(1, math.ceil((value.stop - value.start) / value.step))
        return 1

    def jobs(self) -> list[Override]:
        """One override for each of its values, written as Hydra's sweeper writes it."""
        values: Iterable[str] = [self._parsed.get_value_element_as_str()] if not self.is_sweep else []
        if self.is_sweep:
            loader = GlobalHydra.instance().config_loader()  # knows the files that a glob(*) means
            values = replace(self._parsed, config_loader=loader).sweep_string_iterator()
        return parse(f"{self.element}={value}" for value in values)

    def forced(self) -> Override:
        """The same for a key that not all choices of a sweep have."""
        return parse([f"++{self.text}"])[0]

    def unforced(self) -> Override:
        """The same as it was typed, before it was `forced`."""
        return parse([self.text.removeprefix("++")])[0]


def parse(texts: Iterable[str]) -> list[Override]:
    """Overrides as they are typed or recorded.

    Raises:
        ConfigError: one is too long, or nested too deeply.
        OverrideParseException: Hydra cannot read one; `advice` says what to type instead.
    """
    return [Override(text, _parsed(text)) for text in texts]


def override(key: str, value: Any) -> Override:
    """The one that sets a key to a plain value, or to a list of such."""
    return parse([f"{key}={_written(value)}"])[0]


def texts_of(overrides: Iterable[Override]) -> list[str]:
    """As they are typed, recorded, and handed to Hydra."""
    return [each.text for each in overrides]


def last_of(overrides: Iterable[Override], key: str) -> Override | None:
    """The one that decides what the key is, if any sets it."""
    return next((each for each in reversed(list(overrides)) if each.key == key and each.prefix != "~"), None)


def quoted(text: str) -> str:
    """A text as the value of an override, whatever is in it."""
    return QuotedString(text, Quote.single).with_quotes()


def plain_or_quoted(text: str) -> str:
    """The same, as it stands where that is read alike."""
    return text if PLAIN.fullmatch(text) and text.lower() not in SPECIAL else quoted(text)


def going_on(key: str, path: Path, overrides: Iterable[Override], config_dir: str | None) -> str:
    """The command of a shell that goes on with a run (`resume`) or a sweep (`sweep.resume`) at a path.

    It names the packages and the folder of YAML files again, which only a command line may name.
    """
    options = ["-m"] if key == "sweep.resume" else []
    if config_dir is not None:
        options += ["--config-dir", config_dir]
    packages = [each.text for each in overrides if each.key == "packages"]
    return shlex.join(["node-train", *options, *packages, f"{key}={plain_or_quoted(str(path))}"])


def with_data_of_run(overrides: Sequence[Override]) -> list[Override]:
    """`dataset.path=...` beside `run=...` says where the data of the run are now; its dataset is chosen for it.

    Raises:
        ConfigError: more of the dataset is set, there is no such run, or its dataset was not recorded by name.
    """
    run = last_of(overrides, "run")
    of_data = [each.key for each in overrides if each.group == "dataset"]
    if not of_data or run is None or not is_path(run.given) or run.given == "null":
        return list(overrides)
    others = [key for key in of_data if key not in PLACES]
    if others:
        raise ConfigError(
            f"{', '.join(others)} has no effect with run=..., which brings its own: of its dataset only "
            f"{' and '.join(PLACES)} can be set, where its data were moved"
        )
    folder = RunFolder.of(run.given)
    name = folder.read_choices().get("dataset")
    if not (isinstance(name, str) and name.isidentifier()):
        raise ConfigError(f"the dataset of {folder.path} was not recorded by name: {of_data[0]} cannot be set")
    recorded = folder.read_config().get("dataset")
    texts = {f"dataset.{key}": value for key, value in recorded.items()} if isinstance(recorded, dict) else {}
    kept = {  # among them what has no default
        key: text
        for key, text in texts.items()
        if isinstance(text, str) and "$" not in text and key not in PLACES and not key.startswith("dataset._")
    }
    return [override("dataset", name), *(override(key, text) for key, text in kept.items()), *overrides]


@contextmanager
def stumbling_is_a_mistake(what: str) -> Iterator[None]:
    """Hydra's own errors have their own words; whatever else its readers stumble over, the user has given them."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, yaml.YAMLError, ConfigError):
        raise
    except RecursionError as error:
        raise ConfigError(f"{what}: nested too deeply, or named within itself") from error
    except Exception as error:
        raise ConfigError(f"{what}: {shown(' '.join(str(error).split()))[1:-1]}") from error


def advice(text: str, program: str) -> str:
    """What to type instead of a text that Hydra cannot read, and why; nothing, if no reason is known."""
    raw_key, equals, raw_value = text.partition("=")
    key, value = raw_key.strip(), raw_value.strip()
    if not equals:
        return _without_a_value(text, program)
    if not re.fullmatch(r"[+~]{0,2}[\w./@-]+", key, re.ASCII):
        return f"no key is called {key}" if key else "write key=value"
    if raw_key != key and _can_be_read(f"{key}={value}"):
        return f"leave the spaces out, {key}={value}"
    if value.startswith("="):
        return f"one = is enough, {key}={value.lstrip('=')}"
    if value.startswith("~/"):
        return f"~ stands for no folder here, {_for_a_shell(f'{key}=$HOME{value[1:]}')}"
    opened, closed = (sum(value.count(bracket) for bracket in kind) for kind in ("[{(", ")]}"))
    if opened != closed:
        return f"{opened} brackets open and {closed} close in it"
    if opened == 0 and "" in [part.strip() for part in value.split(",")]:
        return f"there is nothing before or after a comma, write {key}={','.join(filter(None, value.split(',')))}"
    whole = f"{key}={quoted(value)}"
    return f"quote the value, {_for_a_shell(whole)}" if _can_be_read(whole) else ""


def _without_a_value(text: str, program: str) -> str:
    if program in RUN_KEYS and Path(text).is_dir():
        return f"write {RUN_KEYS[program]}={text}"
    if program == "node-train" and text.endswith(".npz") and os.path.exists(text):
        return f"write dataset=npz dataset.path={text}"
    return "write key=value, without spaces"


def _can_be_read(text: str) -> bool:
    try:
        OverridesParser.create().parse_override(text)
    except HydraException:  # which its lexer raises as it stands
        return False
    return True


def _for_a_shell(text: str) -> str:
    """The text as it is typed, in quotes that no shell looks into."""
    if "$HOME" in text:
        return text
    return shlex.quote(text) if set('"$`!').intersection(text) or "\\\\" in text else f'"{text}"'


def _written(value: Any) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, list):
        return f"[{','.join(map(_written, value))}]"
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)


def _parsed(text: str) -> HydraOverride:
    if len(text) > MAX_LENGTH:
        raise ConfigError(f"{text[:30]}... has {len(text)} characters: at most {MAX_LENGTH}")
    if max(accumulate((char in "[{(") - (char in ")}]") for char in text), default=0) > MAX_DEPTH:
        raise ConfigError(f"cannot read the command line: brackets nested more than {MAX_DEPTH} deep")
    with stumbling_is_a_mistake("cannot read the command line"):
        return OverridesParser.create().parse_overrides([text])[0]
