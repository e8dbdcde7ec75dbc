"""Passwords in addresses (`postgresql://me:secret@host/x`, `?password=secret`): never printed, never recorded."""

from __future__ import annotations

import re

HIDDEN = "***"
_OF_A_USER = re.compile(r"(?<=://)([^\s:/@'\"]*):(\S*)@")  # up to the last @: a password may have some
_IN_A_QUERY = re.compile(r"([?&;][\w.-]*(?:pass|pwd|secret|token)[\w.-]*=)([^&;\s'\"]+)", re.IGNORECASE)


def without_passwords(text: str, address: str = "") -> str:
    """The text with a mark for each password, and for each part of one that `address` has."""
    parts = {part for _, password in _OF_A_USER.findall(address) for part in [password, *re.split("[@:/=]", password)]}
    for part in sorted(parts, key=len, reverse=True):
        text = text.replace(part, HIDDEN) if len(part) > 2 else text
    return _IN_A_QUERY.sub(rf"\1{HIDDEN}", _OF_A_USER.sub(rf"\1:{HIDDEN}@", text))
