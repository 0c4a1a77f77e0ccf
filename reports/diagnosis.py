"""The findings of `onnxtool doctor`."""

from __future__ import annotations

from pydantic import Field

from onnxtool.reports.model import Environment, Record


class Extra(Record):
    """An optional dependency group of onnxtool."""

    name: str
    installed: dict[str, str]
    missing: list[str]


class Provider(Record):
    """An execution provider; `usable` when a model really ran on it here."""

    name: str
    usable: bool
    reason: str = ""


class Diagnosis(Record):
    """The findings of `onnxtool doctor`.

    Attributes:
        sandbox: What cannot be kept from a source file here.
        promises: Promise of the sandbox to whether it is kept here.
    """

    onnxtool: str
    environment: Environment
    extras: list[Extra]
    providers: list[Provider]
    sandbox: list[str]
    promises: dict[str, bool] = Field(default={})
    problems: list[str]

    @property
    def healthy(self) -> bool:
        """Whether nothing is broken. What is merely not installed does no harm."""
        return not self.problems
