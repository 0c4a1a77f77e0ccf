"""Which small networks of timm convert and agree, as classifiers and as backbones, and torchvision's detectors.

`python -m benchmarks.coverage timm` needs timm, which brings torchvision. Each network is built with random
weights and running statistics, converted as a user would, and compared with PyTorch itself.
"""

from __future__ import annotations

import importlib
import inspect
import warnings
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.coverage.table import Result, examined, imported, installed, rows_of, versions_line
from benchmarks.coverage.torch_cases import randomised

BACKBONE = "/backbone"
DETECTOR = "torchvision."
SMALL = 5_000_000
TOO_LARGE = {"deepseek_vit": 412, "gemma4_vit": 167, "vgg": 133}
"""timm's modules that have no small network: millions of parameters of their smallest."""

_UNSETTLED = ("visformer_tiny",)
"""Whose values, and their rounding, grow without bound by random weights: they get the images' statistics."""

_SIZE, _ROWS = 96, 3


def case_names() -> list[str]:
    """Every case, in the order of their importance: `NAME`, `NAME/backbone`, `torchvision.NAME`.

    Of each of timm's modules the smallest network, but for its own test networks; then every variant of
    at most `SMALL` parameters; then torchvision's. To count the parameters of all that timm has takes some minutes.
    """
    timm = import_timm()
    sizes = {name: _parameters(name) for name in timm.list_models()}
    modules = [module for module in timm.list_modules() if module not in TOO_LARGE]
    families = [timm.list_models(module=module, exclude_filters="test_*") for module in modules]
    first = [min(names, key=lambda name: (sizes[name], name)) for names in families]
    rest = [name for name, size in sizes.items() if size <= SMALL and name not in first]
    small = [name for names in (first, rest) for name in sorted(names, key=sizes.__getitem__)]
    return [case for name in small for case in (name, f"{name}{BACKBONE}")] + detectors()


def detectors() -> list[str]:
    """torchvision's detection networks, and what of them is before the post-processing."""
    models = importlib.import_module("torchvision").models
    names = models.list_models(module=models.detection)
    return [f"{DETECTOR}{name}{part}" for name in names for part in ("", BACKBONE)]


def examine(case: str) -> Result:
    """Build, convert and compare one case."""

    def build() -> tuple[object, dict[str, Any]]:
        model, images = detector(case) if case.startswith(DETECTOR) else network(case)
        name = next(iter(inspect.signature(model.forward).parameters))
        return model, {"data": {name: images}}

    return examined(build)


def network(case: str) -> tuple[Any, NDArray[np.float32]]:
    """A network of timm, and three images of 96 by 96 for it; of its own size where it takes no other."""
    import torch

    timm = import_timm()
    name = case.removesuffix(BACKBONE)
    options = {"features_only": True} if case.endswith(BACKBONE) else {}
    size = int(timm.get_pretrained_cfg(name, allow_unregistered=True).input_size[-1])
    for settings, side in (({}, _SIZE), ({"img_size": _SIZE}, _SIZE), ({}, size)):
        torch.manual_seed(0)
        try:
            model = timm.create_model(name, **options, **settings).eval()
            images = _images(side)
            with torch.no_grad():
                model(torch.from_numpy(images))
        except Exception as error:  # whatever a network says that takes no such option, or no such image
            fault = error
        else:
            randomised(model)
            if name in _UNSETTLED:
                _settle(model, images)
            return model, images
    raise fault


def detector(case: str) -> tuple[Any, NDArray[np.float32]]:
    """A network of torchvision, or what is before its post-processing, and images of 320 by 320 for it."""
    import torch

    models = importlib.import_module("torchvision").models
    torch.manual_seed(0)
    name = case.removeprefix(DETECTOR).removesuffix(BACKBONE)
    model = models.get_model(name, weights=None, weights_backbone=None, num_classes=5)
    images = np.random.default_rng(0).uniform(size=(_ROWS, 3, 320, 320)).astype(np.float32)
    return randomised((_raw(model) if case.endswith(BACKBONE) else model).eval()), images


def _raw(detector: Any) -> Any:
    """A detector's scores and boxes before its post-processing, of every anchor."""
    import torch

    class Raw(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.backbone = detector.backbone
            self.head = detector.rpn.head if hasattr(detector, "rpn") else detector.head

        def forward(self, images: Any) -> Any:
            return self.head(list(self.backbone(images).values()))

    return Raw()


def _settle(model: Any, images: NDArray[np.float32]) -> None:
    """Give batch norms the statistics of the images, as training does."""
    import torch

    norms = [module for module in model.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(torch.from_numpy(images))
    model.eval()


def _images(size: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(_ROWS, 3, size, size)).astype(np.float32)


def _parameters(name: str) -> int:
    """How many weights a network has."""
    import torch

    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return sum(weight.numel() for weight in import_timm().create_model(name).parameters())


def import_timm() -> Any:
    """Import timm; see `table.imported`."""
    return imported("timm", "timm, and the torchvision that goes with your torch")


def versions() -> dict[str, str]:
    """The versions that decide what converts."""
    import_timm()
    return installed("torch", "onnxscript", "onnx", "onnxruntime", "timm", "torchvision")


def to_markdown(results: Mapping[str, Result], versions: Mapping[str, str]) -> str:
    """The table, and what it comes to for each kind of network.

    Args:
        results: What `examine` returned, by case.
        versions: Those that the results were found with.
    """
    kinds = Counter(_kind(case) for case in results)
    agreed = Counter(_kind(case) for case, result in results.items() if result["outcome"] == "agrees")
    missing = ", ".join(f"{module} ({size} million)" for module, size in TOO_LARGE.items())
    return "\n".join(
        [
            "# timm's small networks, and torchvision's detectors",
            "",
            "Written by `python -m benchmarks.coverage timm --limit 400 --record",
            "reports/coverage/timm.json --markdown reports/coverage/timm.md`; do not edit. Of each of timm's",
            f"modules the smallest network is here, and every variant of at most {SMALL / 1e6:g} million",
            "parameters: as a classifier, and as the backbone of a detector (`features_only=True`), with a",
            "feature map for each scale. torchvision's detectors are whole, and as backbones: scores and boxes",
            "of every anchor, before the post-processing. Weights and running statistics are random. Networks",
            f"of timm get {_ROWS} images of {_SIZE} by {_SIZE}, or of their own size where they take no other;",
            "torchvision's get 320 by 320. They are exported for any number of images, and compared with PyTorch",
            "by the tolerance of `verify`.",
            f"Modules of timm without a small network: {missing}.",
            versions_line(versions),
            "",
            "; ".join(f"{agreed[kind]} of {kinds[kind]} {kind} agree" for kind in sorted(kinds)) + ".",
            "",
            *rows_of(results),
            "",
        ]
    )


def _kind(case: str) -> str:
    if case.startswith(DETECTOR):
        return "detectors before post-processing" if case.endswith(BACKBONE) else "whole detectors"
    return "backbones" if case.endswith(BACKBONE) else "classifiers"
