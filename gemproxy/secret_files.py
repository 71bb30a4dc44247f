"""Secrets that are given as files, as containers have them: NAME_FILE instead of NAME."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

_Text = TypeVar("_Text", str, str | None)
# Bytes. No key is longer, and a device without an end shall not be read to it.
_LARGEST = 64 * 1024


class BadSecretFile(ValueError):
    """A secret is not there to be read; the message says why, and nothing of the secret."""


def file_name_of(name: str) -> str:
    """What names the file of a secret, in the style of the secret's own name."""
    return name + ("-file" if "-" in name else "_FILE" if name.isupper() else "_file")


def without_quotes(text: str) -> str:
    """
    The value of a variable without a pair of quotes around it. A shell and Compose take them off;
    C{docker run --env-file} does not.
    """
    quoted = re.fullmatch(r"\s*(['\"])(.*)\1\s*", text, re.DOTALL)
    return quoted[2] if quoted else text


def read_secret(path: Path) -> str:
    """
    The content of a file, without the white space around it.

    @raise BadSecretFile: it cannot be read, or it is empty: a daemon without the key that was meant
        for it could be open to everybody.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise BadSecretFile(f"{path} cannot be read: {error.strerror}.") from None
    if len(content) > _LARGEST:
        raise BadSecretFile(f"{path} is too large for a key.")
    try:
        text = content.decode().strip()
    except UnicodeDecodeError:
        raise BadSecretFile(f"{path} is not text in UTF-8.") from None
    if not text:
        raise BadSecretFile(f"{path} is empty.")
    return text


def with_secrets_read(
    given: Mapping[str, _Text], names: Iterable[str], folder: Path = Path()
) -> dict[str, _Text]:
    """
    Put the content of files in the place of their names.

    @param given: texts by their names; those that are empty or None count as not given.
    @param names: the names of secrets.
    @param folder: what relative names of files start from.
    @raise BadSecretFile: see L{read_secret}; or a secret is given twice.
    """
    read = dict(given)
    for name in names:
        in_file = file_name_of(name)
        path = read.pop(in_file, None)
        if not path:
            continue
        if read.get(name):
            raise BadSecretFile(f"{name} and {in_file} are both set. Remove one of them.")
        try:
            read[name] = read_secret(folder / without_quotes(path))
        except BadSecretFile as error:
            raise BadSecretFile(f"{in_file}: {error}") from None
    return read
