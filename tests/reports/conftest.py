"""A report with everything that a report can hold."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest

from onnxtool.bench.statistics import box
from onnxtool.reports.model import (
    Bench,
    Bin,
    Candidate,
    Cell,
    Check,
    Comparison,
    ConversionRecord,
    Cpu,
    Difference,
    Environment,
    Gpu,
    LabelDrift,
    Latency,
    Loss,
    Lowering,
    LoweringAttempt,
    Metric,
    ModelSummary,
    OutputParity,
    Parity,
    Percentile,
    Placement,
    Report,
    SourceSummary,
    Subject,
    Tensor,
    Tolerance,
)

HOSTILE = (
    "<script>alert(1)</script>",
    "'\"><img src=x onerror=alert(1)>",
    "=cmd|'/c calc'!A1",
    "@SUM(1+1)|x",
    "]]></failure><script/>",
    "{{ 7*7 }}{% raw %}",
    "a\x00b\x1b[31mred\x07\x85\u202egnp.exe\ufffe",
    "naïve \U0001f600 日本語 name | with `ticks` and [a link](javascript:alert(1))",
    "-1+2",
    "&lt;b&gt; &amp; </title></style>",
)


@pytest.fixture
def sample() -> Report:
    return make_sample()


@pytest.fixture
def hostile_strings() -> tuple[str, ...]:
    return HOSTILE


def make_sample() -> Report:
    return Report(
        tool_version="0.1.0",
        command="demo",
        created=datetime.datetime(2026, 1, 31, 12, 30, 15, tzinfo=datetime.UTC),
        environment=Environment(
            os="Debian GNU/Linux 12 (bookworm) (Linux 6.1.0)",
            python="CPython 3.11.7",
            cpu=Cpu(
                name="Intel(R) Xeon(R) Processor",
                architecture="x86_64",
                physical_cores=2,
                logical_cores=4,
                usable_cores=2,
            ),
            memory_bytes=25_276_510_208,
            gpus=[Gpu(name="NVIDIA H100 80GB HBM3", driver="560.35.03", memory_bytes=85_520_809_984)],
            libraries={"onnx": "1.23.2", "onnxruntime": "1.32.0", "scikit-learn": "1.9.1", "torch": "2.13.0+cpu"},
            providers=["CUDAExecutionProvider", "CPUExecutionProvider"],
            ci=True,
        ),
        subjects=[_classifier(), _network(), _hostile()],
    )


def _classifier() -> Subject:
    """Everything agrees."""
    tolerance = Tolerance(rtol=1e-4, atol=1e-5, reason="default for float32")
    return Subject(
        name="credit.onnx",
        model=_model("credit.onnx", {"TreeEnsembleClassifier": 1, "OneHotEncoder": 2, "Scaler": 1, "Concat": 2}),
        source=SourceSummary(
            framework="sklearn", framework_version="1.9.1", kind="Pipeline", path="credit.skops", sha256="c" * 64
        ),
        conversion=ConversionRecord(
            opset=21,
            target="ort",
            optimize="none",
            convert_s=0.412,
            finish_s=0.0183,
            choices=["probabilities as a tensor: ZipMap is left out", "Scaler with div: thresholds follow it"],
        ),
        parity=Parity(
            rows=1000,
            batches=[1, 3, 17, 979],
            data="made up",
            seed=0,
            provider="CPUExecutionProvider",
            source_s=0.61,
            onnx_s=0.0071,
            passed=True,
            notes=["Input 'age' was given as int64 and rounded to float32."],
            outputs=[
                OutputParity(
                    name="label",
                    role="label",
                    source_dtype="string",
                    onnx_dtype="string",
                    rows=1000,
                    elements=1000,
                    tolerance=Tolerance(rtol=0, atol=0, reason="string must be equal"),
                    label_flips=0,
                    passed=True,
                ),
                OutputParity(
                    name="probabilities",
                    role="probabilities",
                    source_dtype="float64",
                    onnx_dtype="float32",
                    rows=1000,
                    elements=2000,
                    tolerance=tolerance,
                    max_absolute=2.38e-7,
                    mean_absolute=3.1e-8,
                    p99_absolute=1.79e-7,
                    max_relative=8.5e-7,
                    relative_floor=0.1,
                    below_floor=212,
                    max_ulps=4,
                    label_flips=0,
                    histogram=_octaves(-30, [3, 12, 60, 210, 480, 390, 160, 44, 6]),
                    zero_differences=635,
                    passed=True,
                ),
            ],
        ),
        drift=LabelDrift(
            labels="column 'default' of rows.csv",
            task="classification",
            rows=1000,
            metrics=[
                Metric(name="accuracy", source=0.914, onnx=0.914, difference=0, allowed=1e-3, passed=True),
                Metric(name="F1 (macro)", source=0.8871, onnx=0.8869, difference=-2e-4, allowed=1e-3, passed=True),
            ],
            passed=True,
        ),
        bench=Bench(data="made up", seed=0, duration_s=1.0, cells=_cells()),
        checks=[
            Check(id="parity", passed=True, message="1000 rows agree; the largest difference is 2.38e-07."),
            Check(id="drift", passed=True, message="accuracy 0.914 -> 0.914 on 1000 labelled rows."),
            Check(id="bench:CPUExecutionProvider, batch 1, 1 thread", passed=True, message="Measured."),
        ],
    )


def _network() -> Subject:
    """Logits drift, another output is of another shape, and the sweep meets every trouble."""
    tolerance = Tolerance(rtol=1e-4, atol=1e-5, reason="default for float32")
    return Subject(
        name="resnet-small-with-a-rather-long-name-of-the-kind-that-experiments-get-20260131.onnx",
        model=_model(
            "resnet.onnx", {"Conv": 20, "Relu": 17, "Add": 8, "GlobalAveragePool": 1, "Gemm": 1}, 11_173_962
        ),
        source=SourceSummary(framework="torch", framework_version="2.13.0", kind="ResNet"),
        conversion=ConversionRecord(
            opset=20,
            target="ort",
            optimize="basic",
            convert_s=6.31,
            finish_s=0.44,
            candidates=[
                Candidate(
                    name="converted graph",
                    outcome="kept",
                    reason="Nothing that was tried is better.",
                    nodes=47,
                    size_bytes=44_700_000,
                    max_absolute=2.1e-6,
                    mismatched_rows=0,
                ),
                Candidate(
                    name="onnxsim",
                    outcome="refused",
                    reason="Slower: at batch 64 it takes 1.36 times as long (1.12 to 1.64).",
                    nodes=40,
                    size_bytes=44_690_000,
                    max_absolute=1.9e-6,
                    mismatched_rows=0,
                    label_flips=0,
                    comparisons=[
                        Comparison(
                            against="resnet.onnx",
                            method="paired",
                            provider="CPUExecutionProvider",
                            batch=64,
                            threads=None,
                            effect=0.02,
                            outcome="fail",
                            ratio=1.36,
                            low=1.119,
                            high=1.64,
                        )
                    ],
                ),
                Candidate(name="onnxslim", outcome="refused", reason="Same operators as: onnxsim."),
            ],
            lowering=Lowering(
                precision="int8",
                recipe="MinMax, a scale a channel, weights of 8 bits, all operators",
                data="images.npz",
                rows=256,
                kept=["conv_1"],
                nodes=40,
                sensitivity={"conv_1": 0.31, "gemm": 0.004},
                attempts=[
                    LoweringAttempt(
                        recipe="MinMax, a scale a channel, weights of 8 bits, all operators",
                        kept=kept,
                        error=error,
                        losses=[
                            Loss(
                                measure="loss of accuracy",
                                value=error / 10,
                                high=error / 5,
                                allowed=0.01,
                                passed=kept > 0,
                            )
                        ],
                        passed=kept > 0,
                    )
                    for kept, error in ((0, 0.32), (1, 0.02))
                ],
                losses=[
                    Loss(measure="loss of accuracy", value=0.002, high=0.004, allowed=0.01, passed=True),
                    Loss(measure="growth of log loss", value=0.03, high=0.06, passed=True),
                ],
                size_bytes=11_400_000,
                full_size_bytes=44_700_000,
                notes=["Calibrated on 256 rows."],
                passed=True,
            ),
        ),
        parity=Parity(
            rows=256,
            batches=[1, 3, 17, 235],
            data="images.npz",
            seed=None,
            provider="CPUExecutionProvider",
            source_s=9.1,
            onnx_s=4.4,
            passed=False,
            outputs=[
                OutputParity(
                    name="logits",
                    role="values",
                    source_dtype="float32",
                    onnx_dtype="float32",
                    rows=256,
                    elements=2560,
                    tolerance=tolerance,
                    max_absolute=0.0413,
                    mean_absolute=2.2e-4,
                    p99_absolute=3.9e-3,
                    max_relative=0.0931,
                    relative_floor=0.1,
                    below_floor=31,
                    max_ulps=48123,
                    mismatched_nonfinite=1,
                    mismatched_elements=61,
                    mismatched_rows=14,
                    worst=[
                        Difference(row=7, index=[3], source=math.nan, onnx=1.5, absolute=None),
                        Difference(
                            row=31,
                            index=[0],
                            source=1.25,
                            onnx=1.2913,
                            absolute=0.0413,
                            relative=0.033,
                            ulps=48123,
                        ),
                        Difference(row=200, index=[9], source=-math.inf, onnx=-3.4e38),
                    ],
                    histogram=_octaves(
                        -26, [40, 310, 800, 700, 330, 160, 80, 31, 12, 10, 9, 9, 7, 5, 4, 2, 3, 1, 0, 2, 1]
                    ),
                    zero_differences=43,
                    passed=False,
                ),
                OutputParity(
                    name="features",
                    role="values",
                    source_dtype="float32",
                    onnx_dtype="float32",
                    rows=0,
                    elements=0,
                    tolerance=tolerance,
                    problem="Shapes differ: [1, 512] in the source, [1, 512, 1, 1] in ONNX.",
                    passed=False,
                ),
            ],
        ),
        bench=Bench(
            data="images.npz",
            seed=None,
            duration_s=1.0,
            cells=[
                _cell("CPUExecutionProvider", 1, 2, 5.2e-3, refuse=True),
                _cell("CPUExecutionProvider", 8, 2, 33e-3, refuse=True),
                _cell(
                    "CUDAExecutionProvider",
                    1,
                    None,
                    0.9e-3,
                    providers=["CUDAExecutionProvider", "CPUExecutionProvider"],
                ),
                Cell(
                    provider="CUDAExecutionProvider",
                    batch=8,
                    threads=None,
                    status="failed",
                    reason="The worker was killed (signal 9): the machine ran out of memory.",
                ),
                Cell(
                    provider="TensorrtExecutionProvider",
                    batch=1,
                    threads=None,
                    status="unavailable",
                    reason="TensorRT is not built into this ONNX Runtime. Install onnxruntime-gpu.",
                ),
            ],
        ),
        checks=[
            Check(
                id="parity",
                passed=False,
                message="logits: 14 of 256 rows are out of tolerance. features: Shapes differ: [1, 512] in the "
                "source, [1, 512, 1, 1] in ONNX.",
            ),
            Check(
                id="bench:CUDAExecutionProvider, batch 8, default threads",
                passed=False,
                message="The worker was killed (signal 9): the machine ran out of memory.",
            ),
        ],
    )


def _hostile() -> Subject:
    """Names from an untrusted file."""
    script, image, formula, at, cdata, template, controls, unicode, minus, entity = HOSTILE
    return Subject(
        name=script,
        model=ModelSummary(
            path=image,
            sha256="f" * 64,
            size_bytes=0,
            ir_version=8,
            opsets={entity: 1},
            producer=template,
            inputs=[
                Tensor(name=image, dtype=script, shape=[entity, 1]),
                Tensor(name="", dtype="string", shape=[]),
            ],
            outputs=[Tensor(name=formula, dtype="float32", shape=["batch"])],
            operators={f"{cdata}.{template}": 3, controls: 1},
            parameters=0,
            metadata={script: image, controls: unicode, "author": "x" * 400},
        ),
        source=SourceSummary(framework=at, framework_version=script, kind=image, path=cdata),
        conversion=ConversionRecord(
            opset=1,
            target=image,
            optimize=script,
            convert_s=0,
            finish_s=0,
            choices=[script, unicode],
            candidates=[Candidate(name=script, outcome="kept", reason=entity)],
            lowering=Lowering(
                precision="fp16",
                recipe=template,
                data=image,
                rows=0,
                kept=[script, controls],
                nodes=0,
                sensitivity={cdata: math.inf},
                attempts=[LoweringAttempt(recipe=formula, kept=0, error=math.inf, losses=[], passed=False)],
                losses=[Loss(measure=at, value=math.nan, allowed=0.01, passed=False)],
                size_bytes=0,
                full_size_bytes=0,
                notes=[entity],
                passed=False,
            ),
        ),
        parity=Parity(
            rows=1,
            batches=[1],
            data=image,
            seed=0,
            provider=script,
            notes=[unicode, controls],
            source_s=0,
            onnx_s=0,
            passed=False,
            outputs=[
                OutputParity(
                    name=name,
                    role="label",
                    source_dtype="string",
                    onnx_dtype="string",
                    rows=1,
                    elements=1,
                    tolerance=Tolerance(rtol=0, atol=0, reason=unicode),
                    mismatched_rows=1,
                    mismatched_elements=1,
                    label_flips=1,
                    worst=[Difference(row=0, index=[], source=image, onnx=formula)],
                    problem=script,
                    passed=False,
                )
                for name in (formula, unicode, "", minus)
            ],
        ),
        drift=LabelDrift(
            labels=script,
            task="regression",
            rows=1,
            metrics=[Metric(name=image, source=math.nan, onnx=math.inf, difference=math.nan, passed=False)],
            passed=False,
        ),
        bench=Bench(
            data=script,
            seed=0,
            duration_s=0.1,
            cells=[
                Cell(provider=formula, batch=1, threads=1, status="failed", reason=f"{script}\n{controls}"),
                _cell(image, 1, 1, 1e-5, placement=[Placement(provider=entity, nodes=1, operators={script: 1})]),
                _cell(image, 4, 1, 2e-5, warnings=[unicode, entity]),
            ],
        ),
        checks=[
            Check(id=cdata, passed=False, message=script),
            Check(id=controls, passed=False, message=unicode),
            Check(id=at, passed=True, message=image),
        ],
    )


def _model(path: str, operators: dict[str, int], parameters: int = 3120) -> ModelSummary:
    return ModelSummary(
        path=path,
        sha256="ab" * 32,
        size_bytes=parameters * 4 + 9000,
        ir_version=10,
        opsets={"ai.onnx": 21, "ai.onnx.ml": 3},
        producer="onnxtool 0.1.0",
        inputs=[
            Tensor(name="age", dtype="float32", shape=["batch", 1]),
            Tensor(name="city", dtype="string", shape=["batch", 1]),
        ],
        outputs=[
            Tensor(name="label", dtype="string", shape=["batch"]),
            Tensor(name="probabilities", dtype="float32", shape=["batch", 2]),
        ],
        operators=operators,
        parameters=parameters,
        metadata={"onnxtool.source.framework": "sklearn 1.9.1", "onnxtool.created": "2026-01-31T12:30:10Z"},
    )


def _octaves(exponent: int, counts: list[int]) -> list[Bin]:
    return [
        Bin(low=2.0 ** (exponent + step), high=2.0 ** (exponent + step + 1), count=count)
        for step, count in enumerate(counts)
    ]


def _cells() -> list[Cell]:
    cells = [_cell("source", batch, None, 1.9e-3 + 2e-6 * batch) for batch in (1, 8, 64)]
    for n in (1, 8, 64):
        cells += [
            _cell("CPUExecutionProvider", n, threads, (9e-6 + 2.1e-6 * n) / threads**0.4) for threads in (1, 2)
        ]
    for n in (1, 8, 64):
        cells += [_cell("CUDAExecutionProvider", n, threads, 41e-6 + 0.2e-6 * n) for threads in (1, 2)]
    cells.append(
        Cell(
            provider="TensorrtExecutionProvider",
            batch=1,
            threads=1,
            status="unavailable",
            reason="libnvinfer.so.10 is not installed. Install TensorRT 10.",
        )
    )
    return cells


def _cell(
    provider: str,
    batch: int,
    threads: int | None,
    scale: float,
    *,
    refuse: bool = False,
    providers: list[str] | None = None,
    placement: list[Placement] | None = None,
    warnings: list[str] | None = None,
) -> Cell:
    rng = np.random.default_rng(batch + (threads or 0))
    samples = scale * (1 + rng.gamma(1.2, 0.06, size=2000))
    edges = [*np.linspace(samples.min(), np.quantile(samples, 0.99), 25), samples.max()]
    counts, _ = np.histogram(samples, bins=edges)
    p50, p90, p99 = (float(np.quantile(samples, q)) for q in (0.5, 0.9, 0.99))
    reason = "p99 needs 528 runs for an interval at 99% confidence; there were 212. Measure for longer."
    return Cell(
        provider=provider,
        batch=batch,
        threads=threads,
        status="measured",
        session_s=0.0131,
        first_run_s=scale * 20,
        warmup_runs=50,
        latency=Latency(
            samples=212 if refuse else 2000,
            mean_s=float(samples.mean()),
            std_s=float(samples.std()),
            min_s=float(samples.min()),
            max_s=float(samples.max()),
            confidence=0.99,
            percentiles=[
                Percentile(q=0.5, value_s=p50, low_s=p50 * 0.985, high_s=p50 * 1.02),
                Percentile(q=0.9, value_s=p90, low_s=p90 * 0.98, high_s=p90 * 1.03),
                Percentile(q=0.99, value_s=None if refuse else p99, reason=reason if refuse else None),
            ],
            histogram=[
                Bin(low=float(low), high=float(high), count=int(count))
                for low, high, count in zip(edges, edges[1:], counts, strict=False)
            ],
            series_s=[float(np.median(part)) for part in np.array_split(samples, 60)],
            box=box(np.sort((samples * 1e9).astype(np.int64))),
        ),
        rows_per_s=batch / p50,
        peak_memory_bytes=96_000_000 + 1000 * batch,
        model_memory_bytes=4_100_000,
        providers=providers or [provider],
        placement=placement or ([Placement(provider=provider, nodes=6)] if provider != "source" else []),
        timer_resolution_s=1e-9,
        timer_overhead_s=41e-9,
        warnings=warnings or [],
    )
