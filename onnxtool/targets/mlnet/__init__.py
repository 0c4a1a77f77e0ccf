"""ML.NET: its rules, its columns, and C# that scores a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from onnxtool.targets.target import Command, Option, Target

if TYPE_CHECKING:
    import onnx

    from onnxtool.models.source import SourceModel
    from onnxtool.reports.model import Check
    from onnxtool.targets.bundle import Proof
    from onnxtool.targets.lint import RuleSet
    from onnxtool.targets.mlnet.manifest import MlnetManifest
    from onnxtool.targets.mlnet.releases import Deployment


class Mlnet(Target):
    """ML.NET, in a release of the user's choice."""

    name = "mlnet"
    options = (
        Option(
            "columns",
            "an input a column of the table, or one for all of a dtype. [default: as the source has them]",
            ("convert",),
            choices=("separate", "vector"),
        ),
        Option(
            "mlnet_version",
            "release whose limits are kept, and which bundles pin. [default: the newest known]",
            ("convert", "lint", "bundle"),
            metavar="VERSION",
        ),
        Option(
            "name",
            "what the generated types begin with, as Flower for FlowerScorer. [default: from MODEL's file name]",
            ("bundle",),
        ),
    )
    formats = {"mlnet": "onnxtool.targets.mlnet.report"}  # noqa: RUF012 - a constant of the class, as its type says

    def __init__(
        self,
        columns: Literal["separate", "vector"] | None = None,
        mlnet_version: str | None = None,
        name: str | None = None,
    ) -> None:
        from onnxtool.targets.mlnet.releases import find_release

        self.type_name = name
        self.columns, self.version, self.release = columns, mlnet_version, find_release(mlnet_version)
        self.runtime = f"ML.NET {self.release.version} with ONNX Runtime {self.release.runtime}"
        self.max_opset = self.release.opset

    def check(self, command: Command) -> None:
        """Bundles need a release that has what their code uses."""
        if command == "bundle":
            from onnxtool.targets.mlnet.bundle import pinned_versions

            pinned_versions(self.version)

    def check_model(self, model: Path) -> None:
        """Its file, or the user, must name the types."""
        from onnxtool.targets.mlnet.bundle import named

        named(self.type_name, model)

    def rules(self, folder: Path) -> RuleSet[Deployment]:
        """The rules of the release."""
        from onnxtool.targets.mlnet.releases import Deployment
        from onnxtool.targets.mlnet.rules import rules_of

        return rules_of(Deployment(self.release, folder))

    def adapt(self, model: onnx.ModelProto, source: SourceModel) -> list[str]:
        """Keep the rules, with the requested columns and the classes as slot names."""
        from onnxtool.targets.mlnet.adapt import adapt

        return adapt(model, source, self.columns, self.rules(Path()))

    def refusal(self, model: onnx.ModelProto, before: onnx.ModelProto) -> str | None:
        """Operators of ONNX Runtime's own are refused: ML.NET's is another release than the one that wrote them."""
        from onnxtool.converters.graph.optimizers import foreign_operators

        if foreign := foreign_operators(model):
            return f"It has {', '.join(foreign)}, which {self.runtime} need not know."
        return super().refusal(model, before)

    def bundle(self, folder: Path, proof: Proof) -> MlnetManifest:
        """The model, its golden rows, and C# projects that score and test it."""
        from onnxtool.targets.mlnet.bundle import named, pinned_versions, write

        return write(folder, proof, pinned_versions(self.version), named(self.type_name, proof.model.path))

    def acceptance(self) -> Callable[[Path], Check]:
        """The .NET SDK builds the bundle and runs its Check program."""
        from onnxtool.targets.mlnet.acceptance import acceptance

        return acceptance()
