"""A folder that a .NET developer can use as it stands: the model, the proof, and C# that scores it in ML.NET."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from packaging.version import Version

from onnxtool._version import __version__
from onnxtool.errors import ModelError, UsageError
from onnxtool.models.onnx.artifact import OnnxModel
from onnxtool.models.signature import TensorSpec
from onnxtool.models.source import SourceModel, sha256
from onnxtool.reports import units
from onnxtool.reports.markdown import escape
from onnxtool.targets.bundle import Origin, Proof
from onnxtool.targets.golden import Golden
from onnxtool.targets.mlnet import csharp
from onnxtool.targets.mlnet.manifest import Column, MlnetManifest
from onnxtool.targets.mlnet.releases import find_release
from onnxtool.targets.mlnet.report import CPU_PACKAGE, GPU_PACKAGE, mlnet_report
from onnxtool.targets.mlnet.slots import slot_names

TEMPLATES = Path(__file__).parent / "templates"

FILES: Mapping[str, str] = {
    "README.md.j2": "README.md",
    "Directory.Build.props.j2": "Directory.Build.props",
    "gitattributes.j2": ".gitattributes",
    "Solution.slnx.j2": "{name}.slnx",
    "Library.targets.j2": "{name}/buildTransitive/{name}.targets",
    "Library.csproj.j2": "{name}/{name}.csproj",
    "Input.cs.j2": "{name}/{type}Input.cs",
    "Output.cs.j2": "{name}/{type}Output.cs",
    "Scorer.cs.j2": "{name}/{type}Scorer.cs",
    "BatchScorer.cs.j2": "{name}/{type}BatchScorer.cs",
    "CallGate.cs.j2": "{name}/CallGate.cs",
    "ModelFile.cs.j2": "{name}/ModelFile.cs",
    "ProviderSettings.cs.j2": "{name}/ProviderSettings.cs",
    "Manifest.cs.j2": "{name}/Manifest.cs",
    "DeploymentReport.cs.j2": "{name}/DeploymentReport.cs",
    "Golden.cs.j2": "{name}/Golden.cs",
    "Json.cs.j2": "{name}/Json.cs",
    "Check.csproj.j2": "{name}.Check/{name}.Check.csproj",
    "Program.cs.j2": "{name}.Check/Program.cs",
    "Tests.csproj.j2": "{name}.Tests/{name}.Tests.csproj",
    "ParityTests.cs.j2": "{name}.Tests/ParityTests.cs",
}
"""Template to the file that it makes."""

_SHOWN = 16  # elements of an example

_OLDEST = "4.0.0"


def pinned_versions(mlnet_version: str | None) -> tuple[str, str]:
    """Versions of ML.NET and of the native ONNX Runtime for a project file.

    Raises:
        UsageError: nothing is known of that version of ML.NET, or it lacks what the generated code uses.
    """
    release = find_release(mlnet_version)
    if release.before(_OLDEST):
        raise UsageError(
            f"--mlnet-version {mlnet_version}: bundles need {_OLDEST} or later, which has OnnxSessionOptions."
        )
    version = Version(mlnet_version or release.version)
    return (version.base_version if len(version.release) >= 3 else release.version), release.runtime


def named(name: str | None, model: Path) -> str:
    """What the generated types begin with.

    Args:
        name: The user's choice.
        model: The ONNX file, whose name is taken where there is none.

    Raises:
        UsageError: neither says anything of the model.
    """
    if found := csharp.type_name(name or model.stem):
        return found
    raise UsageError(
        f"{name or model.name} says nothing of the model, and two bundles of one name cannot go into one program. "
        "Name the generated types: --name Flower makes FlowerScorer."
    )


def write(folder: Path, proof: Proof, versions: tuple[str, str], type_name: str) -> MlnetManifest:
    """Write the files of a bundle; see `Target.bundle`.

    Args:
        folder: An empty one.
        proof: The proof of a model that keeps ML.NET's rules.
        versions: Versions of ML.NET and of the native ONNX Runtime, to be pinned.
        type_name: What the generated types begin with.

    Raises:
        ModelError: ML.NET cannot feed an input or read an output.
    """
    model, golden = proof.model, proof.golden
    name = f"{type_name}Onnx"  # no type's name, as a namespace must not be
    manifest = MlnetManifest(
        name=name,
        type_name=type_name,
        mlnet_version=versions[0],
        onnxruntime_version=versions[1],
        source=Origin.of(proof.source),
        inputs=_columns(model.inputs, proof, type_name),
        outputs=_columns(model.outputs, proof, type_name, class_labels(model, proof.source)),
        report=mlnet_report(proof.report),
    )
    golden = _scorable(golden, manifest)
    shutil.copyfile(model.path, folder / "model.onnx")
    (folder / "golden.json").write_text(golden.model_dump_json() + "\n", encoding="utf-8", newline="\n")
    templates = _templates()
    for template, path in FILES.items():
        file = folder / path.format(name=name, type=type_name)
        file.parent.mkdir(parents=True, exist_ok=True)
        text = templates.get_template(template).render(_variables(manifest, golden, sha256(model.path)))
        file.write_text(text, encoding="utf-8", newline="\n")
    return manifest


def _scorable(golden: Golden, manifest: MlnetManifest) -> Golden:
    """The rows of those sizes that the generated classes take."""
    free = {column.name for column in (*manifest.inputs, *manifest.outputs) if column.any_length}
    return golden.model_copy(update={"rows": [row for row in golden.rows if row.shapes.keys() <= free]})


def class_labels(model: OnnxModel, source: SourceModel) -> dict[str, list[str]]:
    """The class of each element of an output: ML.NET's slot names, else what the source was fitted on."""
    labels = slot_names(model.proto.graph)
    outputs = [spec for spec in model.outputs if source.roles.get(spec.name) == "probabilities"]
    for spec, names in zip(outputs, source.classes, strict=False):
        labels.setdefault(spec.name, list(names))
    return labels


def _columns(
    specs: Sequence[TensorSpec], proof: Proof, type_name: str, labels: Mapping[str, list[str]] | None = None
) -> list[Column]:
    """The columns of the inputs, or with labels those of the outputs."""
    columns = []
    golden, is_input = proof.golden, labels is None
    types = [f"{type_name}{end}" for end in ("Input", "Output", "Classes")]
    for spec, identifier in zip(specs, csharp.identifiers([spec.name for spec in specs], types), strict=True):
        _check(spec, golden, is_input=is_input)
        shape = golden.shapes[spec.name]
        any_length = _any_length(spec, shape, proof.fixed, is_input=is_input)
        scalar = is_input and shape == [1, 1] and not any_length  # what ML.NET feeds for a column of scalars
        named = (labels or {}).get(spec.name, [])
        columns.append(
            Column(
                name=spec.name,
                column=spec.name if is_input else _column_name(spec.name),
                property=identifier,
                csharp_type=csharp.TYPES[spec.dtype] + ("" if scalar else "[]"),
                dtype=spec.dtype,
                shape=list(spec.shape),
                row_shape=shape,
                any_length=any_length,
                class_labels=named if len(named) == math.prod(shape) else [],
            )
        )
    return columns


def _check(spec: TensorSpec, golden: Golden, *, is_input: bool) -> None:
    if spec.dtype not in csharp.TYPES:
        raise ModelError(
            f"ML.NET has no type for {spec.name!r} ({spec.dtype}). Convert the model with --target mlnet."
        )
    if spec.name not in golden.shapes:
        raise ModelError(f"The source has no output {spec.name!r}, so there is nothing to expect of it.")
    if is_input and golden.shapes[spec.name][:1] != [1]:
        raise ModelError(
            f"The first dimension of {spec} cannot be 1, and ML.NET runs one row at a time. "
            "Convert the model with a dynamic batch."
        )


def _any_length(spec: TensorSpec, row_shape: Sequence[int], fixed: Set[str], *, is_input: bool) -> bool:
    """Whether rows may differ in the number of elements.

    Of an input ML.NET computes one unknown dimension besides the first; more need a shape dictionary, which fixes
    them. Of an output it copies what there is.
    """
    unknown = [size for size in spec.shape[1:] if isinstance(size, str)]
    if is_input:
        return len(unknown) == 1 and unknown[0] not in fixed
    counts = bool(spec.shape) and isinstance(spec.shape[0], str) and row_shape[0] != 1  # boxes, for instance
    return counts or not set(unknown) <= fixed


def _batched(manifest: MlnetManifest) -> bool:
    """Whether one run takes several rows: the first dimension of every input and output is the same dynamic one."""
    first = {column.shape[0] if column.shape else None for column in (*manifest.inputs, *manifest.outputs)}
    return (
        len(first) == 1
        and isinstance(next(iter(first)), str)
        and all(c.row_shape[0] == 1 for c in manifest.outputs)
    )


def _tensor_shape(column: Column, *, batched: bool) -> str:
    """C# for the shape of a tensor of `rows`, as arguments."""
    first = "rows.Length" if batched else "1"
    length = f"rows[0].{column.property}.Length" + (f" / {step}" if (step := _step(column)) != 1 else "")
    sizes = [
        length if column.any_length and isinstance(declared, str) else str(size)
        for declared, size in zip(column.shape[1:], column.row_shape[1:], strict=True)
    ]
    return ", ".join([first, *sizes])


def _column_name(output: str) -> str:
    """The column that ML.NET makes of an output; see OnnxTransform.cs, GetOutputColumnsCore."""
    return output.replace(".output", "") if output.endswith(".output") else output


def _templates() -> Environment:
    templates = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=False,  # noqa: S701 - C# and Markdown: each text of the model's goes through a filter below
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters.update(
        literal=csharp.literal,
        comment=csharp.comment,
        shape=units.shape,
        md=lambda text: escape(units.visible(text)),
        product=math.prod,
        read=_read,
        comparison=_comparison,
        example=_example,
        item=_item,
        step=_step,
    )
    templates.tests.update(array=_is_array, unusual=csharp.is_unusual)
    return templates


def _variables(manifest: MlnetManifest, golden: Golden, model_hash: str) -> dict[str, Any]:
    inputs, batched = manifest.inputs, _batched(manifest)
    fixed = [column for column in inputs if not column.any_length]
    return {
        "version": __version__,
        "name": manifest.name,
        "type": manifest.type_name,
        "sha256": model_hash,
        "source": manifest.source,
        "inputs": inputs,
        "outputs": manifest.outputs,
        "shaped": [column for column in fixed if column.shape[1:] != column.row_shape[1:]],
        "checked": any(_is_array(column) or column.dtype == "string" for column in inputs),
        "texts": any(column.dtype == "string" for column in inputs),
        "batched": batched,
        "tensor_shapes": {column.name: _tensor_shape(column, batched=batched) for column in inputs},
        "mlnet_version": manifest.mlnet_version,
        "onnxruntime_version": manifest.onnxruntime_version,
        "cpu_package": CPU_PACKAGE,
        "gpu_package": GPU_PACKAGE,
        "golden": golden,
        "golden_rows": len(golden.rows),
        "compared": f"all {units.plural(golden.rows_compared, 'row')} compared agree within the tolerance.",
    }


def _is_array(column: Column) -> bool:
    return column.csharp_type.endswith("[]")


def _item(column: Column) -> str:
    """C# type of an element."""
    return column.csharp_type.removesuffix("[]")


def _step(column: Column) -> int:
    """Elements of a row; where rows may differ, each row has a multiple of them."""
    sizes = column.shape[1:] if column.any_length else column.row_shape
    return math.prod(size for size in sizes if isinstance(size, int))


def _read(dtype: str, element: str) -> str:
    """C# that reads a JsonElement as the C# type of a dtype."""
    if dtype in ("float32", "float64"):
        return f"Json.{'Single' if dtype == 'float32' else 'Double'}({element})"
    if dtype == "string":
        return f"Json.String({element})"
    names = {"bool": "Boolean", "int8": "SByte", "uint8": "Byte"}
    return f"{element}.Get{names.get(dtype, dtype.capitalize().replace('Ui', 'UI'))}()"


def _comparison(dtype: str) -> str:
    """C# that compares a JsonElement with an element of an output."""
    if dtype in ("float32", "float64"):
        return "(expected, actual, allowed) => Close(expected, actual, allowed)"
    getter = {"string": "String", "bool": "Boolean"}.get(dtype, "Decimal")
    return f"(expected, actual, allowed) => expected.Get{getter}() == actual"


def _example(column: Column, golden: Golden) -> str:
    """The value of a golden row, or an array of its size where that is long."""
    value = golden.rows[0].inputs[column.name]
    items = value if isinstance(value, list) else [value]
    if len(items) > _SHOWN:
        return f"new {_item(column)}[{len(items)}]"
    shown = [csharp.value(item, column.dtype) for item in items]
    return f"[{', '.join(shown)}]" if _is_array(column) else shown[0]
