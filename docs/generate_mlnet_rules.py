"""Write docs/mlnet-rules.md from the linter's own table. `make schema` runs it, and a test checks the result."""

from __future__ import annotations

from pathlib import Path

from onnxtool.targets.mlnet.releases import RELEASES
from onnxtool.targets.mlnet.rules import RULES, MlnetRule

HEAD = """# ML.NET's rules

Generated from the linter's table by `make schema`; do not edit. [How to use it](mlnet.md).

`lint` checks one more, of every target: ONNX Runtime loads the file (`LOAD`), tried in a confined process.

An `error` is what ML.NET refuses or answers wrongly. A `warning` is what needs more than the model to work. Each
rule was put to the real ML.NET, 1.5 or 5.0.1, in `tests/targets/mlnet/`, which has a model that breaks it and
ML.NET's answer.

| rule | level | must hold | otherwise | remedy | `--fix` |
|---|---|---|---|---|---|
"""

RELEASES_HEAD = """
## Releases

What `--mlnet-version` stands for: each row holds from its release up to the next. ONNX Runtime is the native package
that bundles pin, and whose limits are kept: up to 5.0.0 that of the managed package that the release is built with,
which is 1.23.2 in 5.0.1 too. The native one is the project's own choice; it must not be older, and a newer one raises
the limits.

| ML.NET | ONNX Runtime | opset | opset of `ai.onnx.ml` | IR version | limits from |
|---|---|--:|--:|--:|---|
"""


def page() -> str:
    """The whole page."""
    rows = [f"| {' | '.join(map(str, _row(rule)))} |" for rule in RULES]
    releases = [
        f"| {release.version} | {release.runtime} | {release.opset} | {release.ml_opset} | {release.ir_version} "
        f"| {release.source} |"
        for release in reversed(RELEASES)
    ]
    return f"{HEAD}{chr(10).join(rows)}\n{RELEASES_HEAD}{chr(10).join(releases)}\n"


def _row(rule: MlnetRule) -> list[str]:
    when = (
        f" (before ML.NET {rule.before})" if rule.before else f" (since ML.NET {rule.since})" if rule.since else ""
    )
    reason = rule.reason if rule.measured else f"{rule.reason} *Read.*"
    return [rule.id, rule.level, f"{rule.requirement}{when}", reason, rule.remedy, "yes" if rule.fix else ""]


if __name__ == "__main__":
    Path(__file__).with_name("mlnet-rules.md").write_text(page(), encoding="utf-8")
