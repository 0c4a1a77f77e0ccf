"""The output of `inspect` and `doctor`, which describe one thing and report no run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from onnxtool.reports import units
from onnxtool.reports.diagnosis import Diagnosis
from onnxtool.reports.model import ModelSummary, Tensor
from onnxtool.reports.terminal import ROWS


def print_model(model: ModelSummary) -> None:
    """Describe an ONNX model on the terminal."""
    rows = [
        ("file", f"{model.path}, {units.size(model.size_bytes)}"),
        ("sha256", model.sha256),
        ("producer", model.producer or units.NONE),
        ("IR version", str(model.ir_version)),
        ("opsets", ", ".join(f"{domain} {version}" for domain, version in model.opsets.items())),
        ("parameters", units.count(model.parameters)),
        ("inputs", _tensors(model.inputs)),
        ("outputs", _tensors(model.outputs)),
        ("operators", ", ".join(f"{name} {count}" for name, count in model.operators.items()) or units.NONE),
        *model.metadata.items(),
    ]
    _print(rows)


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print on the terminal what works, what does not, and how to fix it."""
    machine = diagnosis.environment
    rows = [
        ("onnxtool", f"{diagnosis.onnxtool} on {machine.python}, {machine.os}"),
        ("processor", f"{machine.cpu.name}, {machine.cpu.usable_cores} usable cores"),
        ("memory", units.size(machine.memory_bytes)),
        ("GPU", ", ".join(f"{gpu.name} (driver {gpu.driver})" for gpu in machine.gpus) or "none found"),
    ]
    kept = [
        f"{promise}: {'kept' if kept_here else 'NOT KEPT'}" for promise, kept_here in diagnosis.promises.items()
    ]
    rows.append(("sandbox", "\n".join(kept)))
    for provider in diagnosis.providers:
        state = "works: a model ran on it" if provider.usable else f"not usable: {provider.reason}"
        rows.append((units.provider(provider.name), state))
    for extra in diagnosis.extras:
        have = ", ".join(f"{name} {version}" for name, version in extra.installed.items())
        lacking = (
            f"lacks {', '.join(extra.missing)}: pip install 'onnxtool[{extra.name}]'" if extra.missing else ""
        )
        rows.append((f"[{extra.name}]", "; ".join(part for part in (have, lacking) if part)))
    rows += [("PROBLEM", problem) for problem in diagnosis.problems]
    _print(rows)


def _print(rows: Iterable[tuple[str, str]]) -> None:
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(Text(units.visible(name), "bold"), Text("\n".join(map(units.visible, value.split("\n")))))
    Console(highlight=False).print(table)


def _tensors(tensors: Sequence[Tensor]) -> str:
    lines = [f"{tensor.name}  {tensor.dtype}{units.shape(tensor.shape)}" for tensor in tensors[:ROWS]]
    if len(tensors) > ROWS:
        lines.append(f"{ROWS} of {len(tensors):,} shown; --json has all of them.")
    return "\n".join(lines) or units.NONE
