"""The interface of a deployment target, and the registry that finds targets.

A target is the software that a model is made ready for. It is a class, registered through the entry-point group
`onnxtool.targets`, the built-in ones too:

    [project.entry-points."onnxtool.targets"]
    mlnet = "onnxtool.targets.mlnet:Mlnet"

The module named there must import nothing heavy: the command line imports it for its help. What is heavy is imported
in the methods.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, TypeGuard

from onnxtool.errors import ConversionError, UsageError
from onnxtool.plugins import registered
from onnxtool.reports.render import FORMATS

if TYPE_CHECKING:
    import onnx

    from onnxtool.models.source import SourceModel
    from onnxtool.reports.model import Check
    from onnxtool.targets.bundle import Manifest, Proof
    from onnxtool.targets.lint import RuleSet

GROUP = "onnxtool.targets"

Command: TypeAlias = Literal["convert", "lint", "bundle"]


@dataclass(frozen=True, slots=True)
class Option:
    """An option of a target, on the command line and of the Python function of the same name.

    Attributes:
        name: As Python spells it: `mlnet_version` is `--mlnet-version` on the command line.
        help: For the command line, with the default.
        commands: The commands that take it.
        kind: Type of its value; a bool is a flag.
        choices: The values that it may have; none are all of its kind.
        metavar: The value's placeholder in the help.
    """

    name: str
    help: str
    commands: Sequence[Command]
    kind: type[str] | type[int] | type[float] | type[bool] = str
    choices: Sequence[str] = ()
    metavar: str | None = None

    @property
    def flag(self) -> str:
        """The option's name on the command line."""
        return f"--{self.name.replace('_', '-')}"


class Target:
    """A deployment target. Subclass it and register the class.

    An instance is the target with the user's options: `__init__` takes those of `options` by name, each with a
    default, and raises UsageError for invalid values. `rules` alone gives `lint`, `lint --fix` and `convert
    --target`; `bundle` gives `bundle --target`.

    Attributes:
        name: Short name, shown to users and kept in reports.
        options: Its own options.
        formats: Formats of `report --format`: name to the module whose `render(report: Report) -> str` writes it.
        batches: The batch sizes that `bundle` measures.
        runtime: The software that loads the model, for messages, as in `ML.NET 5.0.0 with ONNX Runtime 1.23.2`.
        max_opset: Highest version of the default operator set that it loads; None where it has no limit of its own.
    """

    name: ClassVar[str]
    options: ClassVar[Sequence[Option]] = ()
    formats: ClassVar[Mapping[str, str]] = {}
    batches: ClassVar[Sequence[int]] = (1,)
    runtime: str = "the target"
    max_opset: int | None = None

    def check(self, command: Command) -> None:
        """Check, before any work, that a command can run with the options.

        Raises:
            UsageError: it cannot.
        """

    def check_model(self, model: Path) -> None:
        """Check, before any work, that a bundle can be made of a model's file.

        Raises:
            UsageError: it cannot.
        """

    def rules(self, folder: Path) -> RuleSet[Any] | None:
        """Its rules for an ONNX model, in the order of their repair; None where it has none.

        Args:
            folder: Folder of the model's file, where external data lies.
        """
        return None

    def adapt(self, model: onnx.ModelProto, source: SourceModel) -> list[str]:
        """Make a converted model one that the target takes, in place.

        Args:
            model: Inputs and outputs have the source's names.
            source: The model that it was converted from.

        Returns:
            What was done and what is left, a sentence each.

        Raises:
            ConversionError: a rule is broken that only the model's owner can repair.
        """
        rules = self.rules(Path())
        return [*rules.repair(model), *rules.require(model, self.name)] if rules else []

    def refusal(self, model: onnx.ModelProto, before: onnx.ModelProto) -> str | None:
        """The reason why a model that an optimiser, or a lower precision, made of `before` is refused, if it is.

        None where it is accepted.
        """
        rules = self.rules(Path())
        if rules is None:
            return None
        accepted = {finding.rule for finding in rules.find(before)}
        new = (finding for finding in rules.find(model) if finding.rule not in accepted)
        return next((f"{finding.location}: {finding.message} ({finding.rule})" for finding in new), None)

    def readapt(self, model: onnx.ModelProto, before: onnx.ModelProto) -> None:
        """Repair, in place, what a lower precision made of a model that the target takes.

        Raises:
            ConversionError: it cannot be repaired; see `refusal`.
        """
        if rules := self.rules(Path()):
            rules.repair(model)
        if reason := self.refusal(model, before):
            raise ConversionError(f"--target {self.name}: {reason}")

    def bundle(self, folder: Path, proof: Proof) -> Manifest:
        """Write the files of a bundle, all but `manifest.json`.

        Args:
            folder: An empty folder, which is moved to its place when all is written.
            proof: The model, and what proves it.

        Returns:
            The manifest, of which `files` is filled in later.

        Raises:
            ModelError: the target cannot feed an input or read an output.
        """
        raise NotImplementedError

    def acceptance(self) -> Callable[[Path], Check]:
        """The function by which the target's own software, if installed, runs the proof of a bundle.

        Returns:
            A function from a copy of the bundle, which is deleted afterwards, to a gate.

        Raises:
            UsageError: the software is not installed; the message says which it is and how to get it.
        """
        raise UsageError(f"--accept: the target {self.name!r} has no software that could run a bundle here.")

    @classmethod
    def serves(cls, command: Command) -> bool:
        """Whether it has what a command needs."""
        needed = {"convert": None, "lint": "rules", "bundle": "bundle"}[command]
        return needed is None or getattr(cls, needed) is not getattr(Target, needed)


@cache
def targets() -> dict[str, type[Target]]:
    """All registered targets by name.

    Raises:
        UsageError: two distributions register the same name, or one registers something else or broken.
    """
    return registered(GROUP, "target", _is_target)


def _is_target(plugin: object) -> TypeGuard[type[Target]]:
    return isinstance(plugin, type) and issubclass(plugin, Target) and plugin is not Target


def targets_of(command: Command) -> list[str]:
    """The names of the targets that have what a command needs."""
    return sorted(name for name, target in targets().items() if target.serves(command))


def options_of(command: Command) -> dict[str, dict[str, Option]]:
    """The options of a command's targets: name of the option to its definition in each target that has it.

    Raises:
        UsageError: two targets give one option different values.
    """
    found: dict[str, dict[str, Option]] = {}
    for name in targets_of(command):
        for option in targets()[name].options:
            if command not in option.commands:
                continue
            known = found.setdefault(option.name, {})
            for other, one in known.items():
                if (one.kind, tuple(one.choices)) != (option.kind, tuple(option.choices)):
                    raise UsageError(
                        f"The targets {other!r} and {name!r} both have the option {option.flag}, with different "
                        "values. Uninstall one of the distributions that register them."
                    )
            known[name] = option
    return found


def formats() -> dict[str, str]:
    """The formats of `report --format`, targets' own after those of reports: name to the module that renders it."""
    found = dict(FORMATS)
    for target in targets().values():
        for name, module in target.formats.items():
            found.setdefault(name, module)
    return found


def choose(name: str, command: Command, options: Mapping[str, Any]) -> Target:
    """A target with the user's options; None stands for an option that was not given.

    Raises:
        UsageError: there is no such target or option, or the option has another value.
    """
    if name not in targets_of(command):
        raise UsageError(f"{command} has no target {name!r}. Targets: {', '.join(targets_of(command))}.")
    known = options_of(command)
    given = {option: value for option, value in options.items() if value is not None}
    for option, value in given.items():
        if option not in known:
            raise UsageError(f"{command} has no option {option!r}.")
        if name not in known[option]:
            flag = next(iter(known[option].values())).flag
            raise UsageError(f"{flag} goes with --target {' or '.join(known[option])}.")
        definition = known[option][name]
        if definition.choices and value not in definition.choices:
            raise UsageError(f"{definition.flag} {value!r} is none of {', '.join(definition.choices)}.")
    target = targets()[name](**given)
    target.check(command)
    return target
