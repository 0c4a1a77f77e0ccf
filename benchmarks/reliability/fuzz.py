"""Damaged and hostile files for every reader: `python -m benchmarks.reliability.fuzz --inputs 100000`.

Real files are mutated, by a seed and the input's number, so that each input can be made again. Each must end in
success or in an `OnnxtoolError`, within 10 seconds and 2 GB. The readers run in a separate process: one that
crashes costs its input, which is reported, and another goes on with the next.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.reliability import grammar
from benchmarks.reliability.record import keep
from onnxtool.errors import OnnxtoolError

LIMIT_S = 10
LIMIT_BYTES = 2 * 2**30
NOTABLE = [0, 1, 2, 0x7F, 0x80, 0xFF, *b"()[]{}<>\"'\\/.,:;#%\n\t ", *b".cibRNtux"]
"""Bytes that formats give a meaning to."""


# -- Readers, and real files for them ---------------------------------------------------------------------------


def _estimators() -> Iterator[Any]:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x = np.random.default_rng(0).normal(size=(40, 3))
    y = (x[:, 0] > 0).astype(int)
    yield make_pipeline(StandardScaler(), LogisticRegression()).fit(x, y)
    yield RandomForestClassifier(2, max_depth=2).fit(x, y)


def _pickles(folder: Path) -> None:
    import pickle

    import joblib

    for number, model in enumerate(_estimators()):
        joblib.dump(model, folder / f"{number}.joblib")
        joblib.dump(model, folder / f"{number}z.joblib", compress=3)
        for protocol in (0, 2, 5):
            (folder / f"{number}-{protocol}.pkl").write_bytes(pickle.dumps(model, protocol))


def _read_pickle(path: Path) -> None:
    from onnxtool.models.safety import pickles

    if pickles.is_skops(path):
        pickles.load_skops(path)
    elif pickles.is_pickle(path):
        pickles.load(path)


def _skops(folder: Path) -> None:
    import skops.io

    for number, model in enumerate(_estimators()):
        skops.io.dump(model, folder / f"{number}.skops")


def _onnx(folder: Path) -> None:
    import onnxtool

    for number, model in enumerate(_estimators()):
        onnxtool.convert(model, folder / f"{number}.onnx", verify=False)


def _read_onnx(path: Path) -> None:
    from onnxtool.models.onnx.artifact import OnnxModel

    model = OnnxModel.read(path)
    model.summary()


def _lint(path: Path) -> None:
    import onnxtool

    onnxtool.lint(path)


def _data(folder: Path) -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": [1.5, 2.0, None], "b": ["x", "é", ""], "c": [1, 2, 3], "d": [True, False, True]})
    frame.to_csv(folder / "rows.csv", index=False)
    frame.to_parquet(folder / "rows.parquet")
    frame.to_json(folder / "rows.json", orient="records")
    arrays = {"x": np.ones((3, 2), np.float32), "s": np.array(["a", "bb", ""])}
    np.savez(folder / "rows.npz", **arrays)
    np.savez_compressed(folder / "packed.npz", **arrays)
    np.save(folder / "rows.npy", arrays["x"])


def _read_data(path: Path) -> None:
    from onnxtool.models.rows.data import read_data
    from onnxtool.models.rows.stream import stream_data

    read_data(path)
    for _ in stream_data(path):
        pass


def _reports(folder: Path) -> None:
    golden = Path(__file__).parents[2] / "tests" / "reports" / "golden" / "report-2.0.json"
    (folder / "report.json").write_bytes(golden.read_bytes())


def _read_report(path: Path) -> None:
    from onnxtool.reports.json import read
    from onnxtool.reports.render import render

    render(read(path), "csv")


def _mlflow(folder: Path) -> None:
    (folder / "MLmodel").write_text(
        "flavors:\n  sklearn:\n    pickled_model: model.pkl\n    code: null\nrun_id: a\n"
    )


def _read_mlflow(path: Path) -> None:
    from onnxtool.models.mlflow_folder import model_in

    named = path.with_name("MLmodel")
    path.replace(named)
    (named.parent / "model.pkl").touch()
    model_in(named.parent)


def _keras(folder: Path) -> None:
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dense(2)])
    model.save(folder / "model.keras")
    model.save(folder / "model.h5")


def _tflite(folder: Path) -> None:
    """One network in float, in int8, and in int8 whose input and output are int8 too."""
    from onnxtool.models.tensorflow import import_tensorflow, quiet, quiet_native

    tf = import_tensorflow()
    rng = np.random.default_rng(0)
    kernel, dense = (rng.normal(size=shape, scale=0.1).astype("f") for shape in ((3, 3, 3, 4), (256, 3)))

    @tf.function(input_signature=[tf.TensorSpec([None, 8, 8, 3], tf.float32, "image")])  # type: ignore[untyped-decorator]
    def network(image: Any) -> Any:
        features = tf.nn.relu(tf.nn.conv2d(image, kernel, 1, "SAME"))
        return tf.nn.softmax(tf.matmul(tf.reshape(features, [-1, 256]), dense))

    images = rng.random((20, 1, 8, 8, 3), np.float32)
    converter = tf.lite.TFLiteConverter.from_concrete_functions([network.get_concrete_function()], network)
    with quiet(), quiet_native(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        (folder / "float.tflite").write_bytes(converter.convert())
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: ([image] for image in images)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        (folder / "int8.tflite").write_bytes(converter.convert())
        converter.inference_input_type = converter.inference_output_type = tf.int8
        (folder / "whole.tflite").write_bytes(converter.convert())


def _read_tflite(path: Path) -> None:
    """As `load_tflite`, but the interpreter runs in this process: another one for each file takes seconds."""
    from onnxtool.errors import SourceError
    from onnxtool.models.tensorflow.tflite import check, interpreter

    content = path.read_bytes()
    check(content, path)
    try:
        interpreter(content).invoke()
    except (RuntimeError, ValueError) as error:
        raise SourceError(str(error)) from error


def _torch(folder: Path) -> None:
    import torch

    module = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    torch.export.save(torch.export.export(module, (torch.ones(1, 4),)), folder / "model.pt2")


def _open(path: Path) -> None:
    """Whatever it is by its content, as `convert` opens it."""
    from onnxtool.models.source import LoadOptions
    from onnxtool.opening import open_source

    open_source(str(path), LoadOptions())


Use: TypeAlias = Callable[[Path], None]
Change: TypeAlias = Callable[[bytes, bytes, np.random.Generator], bytes]

TARGETS: dict[str, tuple[Use, Use, float]] = {
    "pickles": (_pickles, _read_pickle, 0.3),
    "skops": (_skops, _read_pickle, 0.05),
    "onnx": (_onnx, _read_onnx, 0.2),
    "lint": (_onnx, _lint, 0.05),
    "data": (_data, _read_data, 0.2),
    "reports": (_reports, _read_report, 0.1),
    "mlflow": (_mlflow, _read_mlflow, 0.05),
    "keras": (_keras, _open, 0.025),
    "torch": (_torch, _open, 0.025),
    "tflite": (_tflite, _read_tflite, 0.05),
    "pickles of admitted names": (grammar.any_file, grammar.read_pickle, 1.0),
    "structured onnx": (grammar.models, grammar.inspected, 1.0),
    "structured onnx, verified": (grammar.models, grammar.verified, 0.05),
    "structured onnx, measured": (grammar.models, grammar.measured, 0.002),
}
"""Name to what writes real files, what reads one, and its share of the inputs."""

CHANGES: dict[str, Change] = {
    "pickles of admitted names": grammar.pickled,
    **dict.fromkeys((name for name in TARGETS if name.startswith("structured")), grammar.structured),
}
"""Readers whose inputs are not damaged files but well-formed ones that mean harm."""

CONTAINED = ("tflite",)
"""Readers that onnxtool runs in a separate process in any case: there, a crash is an error of ours."""


# -- Mutations ----------------------------------------------------------------------------------------------------


def mutated(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """Change a file in one to three places.

    Args:
        content: The file.
        other: Another one, of which a piece may come in.
        rng: Decides what is changed.
    """
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(0, max(len(changed), 1)))
        length = int(rng.integers(1, 1 + min(64, max(len(changed) - place, 1))))
        kind = rng.integers(0, 8)
        if not changed:
            break
        if kind == 0:
            changed[place] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            changed[place] = NOTABLE[int(rng.integers(0, len(NOTABLE)))]
        elif kind == 2:
            del changed[place : place + length]
        elif kind == 3:
            changed[place:place] = changed[place : place + length] * int(rng.integers(1, 4))
        elif kind == 4:
            changed[place : place + length] = rng.bytes(length)
        elif kind == 5:
            start = int(rng.integers(0, max(len(other), 1)))
            changed[place:place] = other[start : start + length]
        elif kind == 6:  # a length or an offset that lies
            width = int(rng.choice([2, 4, 8]))
            value = (0, 1, 2 ** (8 * width - 1) - 1, 2 ** (8 * width) - 1)[int(rng.integers(0, 4))]
            changed[place : place + width] = value.to_bytes(width, str(rng.choice(["little", "big"])))
        else:
            del changed[place:]
    return bytes(changed)


# -- Running ------------------------------------------------------------------------------------------------------


class _TooLongError(BaseException):
    """Not an Exception: readers that turn those into their own would hide it."""


def _serve(use: tuple[Use, Change], seed: int, span: tuple[int, int], corpus: Path, pipe: Any) -> None:
    """Try inputs; report the start of each, and how it ended."""
    read, change = use

    def late(*_: object) -> None:
        raise _TooLongError

    signal.signal(signal.SIGALRM, late)
    files = sorted(file for file in corpus.rglob("*") if file.is_file())
    contents = [file.read_bytes() for file in files]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, Path(os.devnull).open("w") as null:
        read_once = Path(folder) / files[0].name
        read_once.write_bytes(contents[0])
        with contextlib.suppress(OnnxtoolError):
            read(read_once)  # imports what there is to import, before memory is counted
        os.dup2(null.fileno(), 1)
        os.dup2(null.fileno(), 2)
        allocated = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (allocated + LIMIT_BYTES, allocated + LIMIT_BYTES))
        for number in range(*span):
            rng = np.random.default_rng([seed, number])
            place, other = (int(rng.integers(0, len(files))) for _ in range(2))
            path = Path(folder) / files[place].name
            path.write_bytes(change(contents[place], contents[other], rng))
            pipe.send((number, None))
            signal.setitimer(signal.ITIMER_REAL, LIMIT_S)
            try:
                read(path)
                outcome = "read"
            except OnnxtoolError:
                outcome = "refused"
            except _TooLongError:
                outcome = f"longer than {LIMIT_S} s"
            except BaseException as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                outcome = (
                    f"{type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}:{where.lineno})"
                )
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            pipe.send((number, outcome))


def fuzz(
    write: Use, read: Use, inputs: int, seed: int = 0, *, contained: bool = False, change: Change = mutated
) -> dict[str, Any]:
    """Try mutated files on one reader.

    Args:
        write: Writes real files into a folder.
        read: The reader, which is given one file.
        inputs: How many.
        seed: Of the mutations.
        contained: Whether a crash counts as refused.
        change: Makes an input of two files.

    Returns:
        How many were `read` and `refused`, and `findings`: the number of each input that ended otherwise, with how.
    """
    counts = {"inputs": inputs, "read": 0, "refused": 0}
    findings: list[dict[str, Any]] = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder)
        write(corpus)
        done = 0
        while done < inputs:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_serve, args=((read, change), seed, (done, inputs), corpus, theirs), daemon=True
            )
            process.start()
            theirs.close()
            begun = done
            try:
                while True:
                    if not ours.poll(10 * LIMIT_S):
                        process.kill()
                        break
                    number, outcome = ours.recv()
                    if outcome is None:
                        begun = number
                        continue
                    done = number + 1
                    if outcome in counts:
                        counts[outcome] += 1
                    else:
                        findings.append({"input": number, "outcome": outcome})
            except EOFError:
                pass
            process.join()
            if done < inputs:
                if contained:
                    counts["refused"] += 1
                else:
                    findings.append({"input": begun, "outcome": f"the process ended with {process.exitcode}"})
                done = begun + 1
    return {**counts, "findings": findings}


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reliability.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=300_000, help="over all readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=TARGETS, action="append", help="readers; by default all")
    parser.add_argument("--record", type=Path, help="where the result is kept")
    options = parser.parse_args(arguments)
    chosen = options.only or list(TARGETS)
    total = sum(TARGETS[name][2] for name in chosen)
    results = {}
    began = time.monotonic()
    for name in chosen:
        write, read, share = TARGETS[name]
        results[name] = fuzz(
            write,
            read,
            max(1, round(options.inputs * share / total)),
            options.seed,
            contained=name in CONTAINED,
            change=CHANGES.get(name, mutated),
        )
        counts = {key: value for key, value in results[name].items() if key != "findings"}
        sys.stdout.write(f"{name}: {counts}, {len(results[name]['findings'])} findings\n")
        for finding in results[name]["findings"][:10]:
            sys.stdout.write(f"  {finding}\n")
        sys.stdout.flush()
    seconds = round(time.monotonic() - began)
    keep(options.record, f"fuzz --inputs {options.inputs} --seed {options.seed}", seconds=seconds, readers=results)
    return 1 if any(result["findings"] for result in results.values()) else 0


if __name__ == "__main__":
    raise SystemExit(main())
