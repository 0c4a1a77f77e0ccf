"""Folders of Hugging Face's libraries: models of transformers, of sentence-transformers, and adapters of PEFT.

They are recognised by what their JSON files say, and built by their own libraries, which import no code of the folder
(`trust_remote_code` is never set) and read its weights from safetensors only.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

from onnxtool.errors import SourceError, UntrustedError, require
from onnxtool.models.onnx.artifact import first_line
from onnxtool.models.signature import BATCH, TensorSpec

Kind: TypeAlias = Literal["model", "sentences", "adapter"]

_EXTRA = "transformers"
_OFFLINE = {"local_files_only": True, "trust_remote_code": False}
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".ckpt")
_ACTIVATION = "torch.nn.modules."
_AUTO = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}
"""The class of transformers for the base of an adapter, by PEFT's name of the task."""


def folder_kind(path: Path) -> Kind | None:
    """The kind of a folder by its content, or None when none of these libraries wrote it."""
    if not path.is_dir():
        return None
    if _json(path / "adapter_config.json", "peft_type"):
        return "adapter"
    modules = path / "modules.json"
    if modules.is_file() and '"type"' in modules.read_text(encoding="utf-8", errors="replace"):
        return "sentences"
    return "model" if _json(path / "config.json", "model_type") else None


def base_of(folder: Path, given: Path | None) -> Path | None:
    """The folder of an adapter's base model: the one given, else the one of its name, in the adapter's or next to it.

    None where the folder is no adapter, or there is no such folder.
    """
    if folder_kind(folder) != "adapter":
        return None
    if given is not None:
        return given
    # The adapter's file decides which folder its process sees: a name, never a path or link that leads elsewhere.
    name = Path(str(_json(folder / "adapter_config.json", "base_model_name_or_path"))).name
    places = [place / name for place in (folder, folder.parent) if name not in ("", "..")]
    return next((place for place in places if not place.is_symlink() and folder_kind(place) == "model"), None)


def read_folder(path: Path, base: Path | None = None) -> Any:
    """Build the model of a folder, as a module from tensors to tensors by name with an attribute `input_specs`.

    Args:
        path: The folder.
        base: Folder of the base model of an adapter; without it the one next to the adapter.

    Raises:
        MissingExtraError: its library is not installed.
        UntrustedError: it has code or pickles of its own. None of it has run.
        SourceError: it is damaged, or of an architecture that the installed library has not.
    """
    kind = folder_kind(path)
    found = base_of(path, base)
    if kind == "adapter" and (found is None or folder_kind(found) != "model"):
        name = _json(path / "adapter_config.json", "base_model_name_or_path")
        raise SourceError(
            f"{path} is an adapter, and its base {name} is not next to it. Name the base's folder: --base FOLDER"
        )
    for folder in (path, found):
        if folder is not None:
            _admit(folder)
    try:
        if kind == "sentences":
            return _sentences(path)
        if kind == "adapter" and found is not None:
            return _adapted(path, found)
        return _signed(_pretrained(path, None))
    except (SourceError, UntrustedError, ImportError):
        raise
    except Exception as error:  # a damaged folder fails in as many ways as there are parsers in these libraries
        raise SourceError(
            f"{path} cannot be opened: {first_line(error)}\nSave the model again with save_pretrained."
        ) from error


def _admit(folder: Path) -> None:
    """Refuse a folder whose model needs code of its own, or whose weights lie in pickles.

    Raises:
        UntrustedError: it does.
    """
    for file in sorted(folder.rglob("*")):
        if file.suffix in _PICKLES and not any(file.parent.glob("*.safetensors")):
            raise UntrustedError(
                f"{file} is a pickle, which may run code. Save the model again with its library, as safetensors."
            )
    if auto := _json(folder / "config.json", "auto_map"):
        raise UntrustedError(
            f"{folder} needs code of its own ({', '.join(map(str, auto))}), which is not run. Build the model in "
            "your own code, and name a function that returns it: package.module:callable"
        )
    modules = folder / "modules.json"
    if modules.is_file():
        for part in json.loads(modules.read_text(encoding="utf-8")):
            if not str(part.get("type")).startswith("sentence_transformers."):
                raise UntrustedError(
                    f"{folder} has a module {part.get('type')}, which is none of sentence-transformers' own and is "
                    "not imported. Build the model in your own code: package.module:callable"
                )
            activation = _json(folder / str(part.get("path", "")) / "config.json", "activation_function")
            if activation and not str(activation).startswith(_ACTIVATION):
                raise UntrustedError(
                    f"{folder} names the function {activation}, which is none of PyTorch's layers."
                )


def _pretrained(folder: Path, auto: str | None) -> Any:
    import torch

    transformers = require("transformers", _EXTRA)
    architectures = _json(folder / "config.json", "architectures") or []
    name = auto or (str(architectures[0]) if architectures else "AutoModel")
    kind = getattr(transformers, name, None)
    if kind is None or not hasattr(kind, "from_pretrained"):
        raise SourceError(
            f"{folder} is a {name}, which transformers {transformers.__version__} does not have. Install the release "
            "that saved it."
        )
    if not any(folder.glob("*.safetensors")):
        raise SourceError(f"{folder} has no weights (model.safetensors). Copy or save the folder again.")
    return kind.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, **_OFFLINE).eval()


def _adapted(folder: Path, base: Path) -> Any:
    """An adapter's model, with the adapter added to the weights of its base."""
    peft = require("peft", _EXTRA)
    task = _json(folder / "adapter_config.json", "task_type")
    model = _pretrained(base, _AUTO.get(str(task)))
    adapted = peft.PeftModel.from_pretrained(model, folder, local_files_only=True, use_safetensors=True)
    return _signed(adapted.merge_and_unload(safe_merge=True).eval())


def _sentences(folder: Path) -> Any:
    library = require("sentence_transformers", _EXTRA)
    model = library.SentenceTransformer(str(folder), device="cpu", **_OFFLINE).float().eval()
    taken = [name for name in model.tokenizer.model_input_names if name in ("input_ids", "attention_mask")]
    if "token_type_ids" in model.tokenizer.model_input_names and hasattr(
        model[0].auto_model.config, "type_vocab_size"
    ):
        taken.append("token_type_ids")
    specs = tuple(TensorSpec(name, "int64", (BATCH, "sequence")) for name in taken)
    return _module(model, specs, lambda tensors: {"sentence_embedding": model(tensors)["sentence_embedding"]})


def _signed(model: Any) -> Any:
    """A model of transformers with the inputs that its architecture takes, and a KV cache where it generates text."""
    specs = tuple(_inputs(model))
    if layers := _cache_layers(model):
        return _cached(model, layers)
    model.config.use_cache = False

    def run(tensors: dict[str, Any]) -> dict[str, Any]:
        return dict(_tensors(model(**tensors)))

    return _module(model, specs, run)


def _inputs(model: Any) -> Iterator[TensorSpec]:
    config = model.config
    taken = inspect.signature(model.forward).parameters
    main = model.main_input_name
    if main == "input_ids":
        yield TensorSpec("input_ids", "int64", (BATCH, "sequence"))
    elif main == "pixel_values" and (size := getattr(config, "image_size", None)):
        height, width = (size, size) if isinstance(size, int) else size
        yield TensorSpec(main, "float32", (BATCH, getattr(config, "num_channels", 3), height, width))
    elif main == "input_features" and hasattr(config, "max_source_positions"):
        yield TensorSpec(main, "float32", (BATCH, config.num_mel_bins, 2 * config.max_source_positions))
    elif main == "input_values":
        yield TensorSpec(main, "float32", (BATCH, "samples"))
    else:
        raise SourceError(
            f"The sizes of {main} of {type(model).__name__} are not in its config.json. Build the model in your own "
            f"code and give them: package.module:callable --input {main}:float32[{BATCH},...]"
        )
    if main == "input_ids" and "attention_mask" in taken:
        yield TensorSpec("attention_mask", "int64", (BATCH, "sequence"))
    if main == "input_ids" and "token_type_ids" in taken and getattr(config, "type_vocab_size", 0) > 1:
        yield TensorSpec("token_type_ids", "int64", (BATCH, "sequence"))
    if "decoder_input_ids" in taken:
        yield TensorSpec("decoder_input_ids", "int64", (BATCH, "decoder_sequence"))


def _tensors(outputs: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    import torch

    for name, value in outputs.items():
        if isinstance(value, torch.Tensor):
            yield name, value


def _cache_layers(model: Any) -> list[tuple[int, int]]:
    """Heads and size of a head of each layer whose keys and values a generating decoder keeps; empty where none is.

    The model is run on one token to see them.
    """
    import torch
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if type(model).__name__ not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values() or model.config.is_encoder_decoder:
        return []
    with torch.no_grad():
        cache = model(torch.zeros((1, 1), dtype=torch.int64), use_cache=True).get("past_key_values")
    layers = list(getattr(cache, "layers", ()))
    if not layers or any(type(layer).__name__ != "DynamicLayer" for layer in layers):
        return []
    return [(layer.keys.shape[1], layer.keys.shape[3]) for layer in layers]


def _cached(model: Any, layers: list[tuple[int, int]]) -> Any:
    """A decoder that takes the keys and values of the tokens before, and returns them with its own."""
    from transformers import DynamicCache

    past = "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"

    def run(tensors: dict[str, Any]) -> dict[str, Any]:
        given = dict(tensors)
        cache = DynamicCache()
        for place in range(len(layers)):
            key, value = (given.pop(f"past_key_values.{place}.{part}") for part in ("key", "value"))
            cache.update(key, value, place)
        outputs = model(**given, **{past: cache}, use_cache=True)
        found = {"logits": outputs["logits"]}
        layers_now: list[Any] = list(cache.layers)
        for place, layer in enumerate(layers_now):
            found |= {f"present.{place}.key": layer.keys, f"present.{place}.value": layer.values}
        return found

    specs = [TensorSpec("input_ids", "int64", (BATCH, "sequence"))]
    specs += [
        TensorSpec(f"past_key_values.{place}.{part}", "float32", (BATCH, heads, "past_sequence", size))
        for place, (heads, size) in enumerate(layers)
        for part in ("key", "value")
    ]
    return _module(model, tuple(specs), run)


def _module(model: Any, specs: tuple[TensorSpec, ...], run: Any) -> Any:
    """A module that takes the tensors of `specs` by position, and gives them to `run` by name."""
    import torch

    class Pretrained(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.input_specs = specs

        def forward(self, *tensors: Any) -> dict[str, Any]:
            found: dict[str, Any] = run(dict(zip([spec.name for spec in specs], tensors, strict=True)))
            return found

    Pretrained.__name__ = Pretrained.__qualname__ = type(model).__name__
    return Pretrained().eval()


def _json(path: Path, key: str) -> Any:
    """An entry of a JSON file; None where there is no such file or entry."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    return content.get(key) if isinstance(content, dict) else None
