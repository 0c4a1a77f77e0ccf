"""The pytest plug-in: fixtures that compare ONNX models with their sources, and measure them.

    def test_parity(onnx_parity):
        onnx_parity("churn.onnx", "churn.joblib", data="churn.csv")

    def test_latency(onnx_benchmark):
        onnx_benchmark("churn.onnx", batch=32)

pytest imports this module in every run, so that it imports nothing of onnxtool until a test uses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from onnxtool.api.arguments import PathLike
    from onnxtool.models.rows.data import Data
    from onnxtool.reports.model import Report


class OnnxParity(Protocol):
    """The type of the fixture `onnx_parity`."""

    def __call__(self, model: PathLike, source: Any, **arguments: Any) -> Report:
        """Fail the test, with the report, when an ONNX model does not agree with its source.

        Args:
            model: The ONNX file.
            source: A live model, its file, or `package.module:callable`.
            arguments: Arguments of `onnxtool.verify`: `data`, `labels`, `rtol`, `atol`, `seed` and others.

        Returns:
            The report, which passed.

        Raises:
            OnnxtoolError: a file or an argument is at fault.
        """
        ...


class OnnxBenchmark(Protocol):
    """The type of the fixture `onnx_benchmark`."""

    def __call__(
        self,
        model: PathLike,
        *,
        data: Data | None = None,
        batch: int = 1,
        provider: str = "cpu",
        threads: int | None = None,
        options: Mapping[str, str] = MappingProxyType({}),
        seed: int = 0,
    ) -> dict[str, Any]:
        """Measure runs of an ONNX model with pytest-benchmark, which saves and compares them.

        The session and where its nodes run are checked before anything is measured, and reported in the benchmark's
        `extra_info`. All other settings are ONNX Runtime's.

        Args:
            model: The ONNX file.
            data: Rows, as for `onnxtool.bench`; without them, made up from the model's signature.
            batch: Rows in a run.
            provider: `cpu`, `cuda`, `tensorrt`, or an execution provider's full name. One that cannot be used
                here, or gets none of the nodes, fails the test.
            threads: Threads within an operator; None leaves it to ONNX Runtime.
            options: Of the provider and of the session, as for `onnxtool.bench`.
            seed: Seed of made-up rows.

        Returns:
            The outputs of the last run by name.

        Raises:
            OnnxtoolError: a file or an argument is at fault.
        """
        ...


@pytest.fixture
def onnx_parity() -> OnnxParity:
    """Fail a test where an ONNX model drifts from its source: see `OnnxParity`."""

    def check(model: PathLike, source: Any, **arguments: Any) -> Report:
        import onnxtool
        from onnxtool.reports.render import render

        report = onnxtool.verify(model, source, **arguments)
        if not report:
            pytest.fail(render(report, "text"), pytrace=False)
        return report

    return check


@pytest.fixture
def onnx_benchmark(request: pytest.FixtureRequest) -> OnnxBenchmark:
    """Measure an ONNX model with pytest-benchmark: see `OnnxBenchmark`."""
    if not request.config.pluginmanager.hasplugin("benchmark"):
        pytest.fail("onnx_benchmark needs pytest-benchmark: pip install pytest-benchmark", pytrace=False)
    benchmark = request.getfixturevalue("benchmark")

    def measure(
        model: PathLike,
        *,
        data: Data | None = None,
        batch: int = 1,
        provider: str = "cpu",
        threads: int | None = None,
        options: Mapping[str, str] = MappingProxyType({}),
        seed: int = 0,
    ) -> dict[str, Any]:
        from onnxtool.api.benching import rows_of
        from onnxtool.bench.feeds import batch_of
        from onnxtool.bench.plan import plan_cells
        from onnxtool.bench.session import open_session
        from onnxtool.models.onnx import providers, settings
        from onnxtool.models.onnx.artifact import OnnxModel
        from onnxtool.models.rows.data import to_arrays

        read = OnnxModel.read(model)
        (plan,) = plan_cells([settings.full_name(provider)], [batch], [threads], options=options)
        settings.check(options, [plan.provider], read.proto.graph)
        raw, origin = to_arrays(data) if data is not None else ({}, "")
        rows = rows_of(read, None, raw, origin, largest=batch, seed=seed)
        feeds = batch_of(rows.tensors, read.inputs, batch)
        try:
            session = open_session(str(read.path), plan)
            placement = providers.recorded_placement(session) or []
            if placement:
                providers.require_nodes(plan.provider, placement)
        except providers.UnavailableError as error:
            pytest.fail(str(error), pytrace=False)
        benchmark.extra_info |= {
            "model": read.path.name,
            "sha256": read.summary().sha256,
            "batch": batch,
            "provider": plan.provider,
            "threads": threads,
            "nodes": {part.provider: part.nodes for part in placement},
        }
        outputs = benchmark(session.run, None, feeds)
        return dict(zip([output.name for output in session.get_outputs()], outputs, strict=True))

    return measure
