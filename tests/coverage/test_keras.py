"""The table of Keras's layers and networks: a sample of it, and that it is whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.coverage import keras as keras_table
from benchmarks.coverage import table
from benchmarks.coverage.keras_cases import NO_MODEL, layer_cases
from onnxtool.models.keras.backend import import_keras

RECORDS = Path(__file__).resolve().parents[2] / "reports" / "coverage"


@pytest.mark.parametrize(
    "name",
    ["Bidirectional/GRU-embedded", "Equalization", "GRU/state", "RNN/masked"],
)
def test_a_layer_agrees_with_keras(name: str) -> None:
    assert keras_table.examine(name) == {"outcome": "agrees", "reason": ""}


def test_a_layer_that_onnx_has_no_form_for_says_why() -> None:
    result = keras_table.examine("Hashing")
    assert result["outcome"] == "refused"
    assert "StringToHashBucketFast" in result["reason"]


def test_every_layer_has_a_case_or_a_reason() -> None:
    layers = import_keras().layers
    kinds = {name: kind for name, kind in vars(layers).items() if isinstance(kind, type)}
    examined = {kinds[name.partition("/")[0]] for name in layer_cases()}
    missing = [name for name, kind in kinds.items() if issubclass(kind, layers.Layer) and kind not in examined]
    assert set(missing) == set(NO_MODEL)


@pytest.mark.parametrize(
    ("backend", "page", "share"),
    [("tensorflow", "keras", 0.9), ("torch", "keras-torch", 0.8)],  # text and hashing need TensorFlow
)
def test_the_record_holds_every_layer_and_the_page_is_made_of_it(backend: str, page: str, share: float) -> None:
    versions = keras_table.versions(backend)
    results = table.from_json(RECORDS / f"{page}.json", versions)
    assert set(layer_cases()) <= set(results)
    assert (RECORDS / f"{page}.md").read_text(encoding="utf-8") == keras_table.to_markdown(results, versions)
    layers = [result for name, result in results.items() if name in layer_cases()]
    assert sum(result["outcome"] == "agrees" for result in layers) >= share * len(layers)


def test_a_run_goes_on_where_it_was(tmp_path: Path) -> None:
    record = tmp_path / "keras.json"
    kept = {"outcome": "refused", "reason": "kept"}
    versions = keras_table.versions("tensorflow")
    record.write_text(table.to_json({"Dense": kept}, versions), encoding="utf-8")
    results = table.fill(record, versions, keras_table.examine, ["Dense", "Flatten"], workers=1, limit_s=0.001)
    assert results["Dense"] == kept
    assert results["Flatten"]["reason"].startswith("It takes longer")
    assert table.from_json(record, versions) == results
