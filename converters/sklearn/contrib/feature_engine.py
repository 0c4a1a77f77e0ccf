"""Feature-engine: its transformers' own code is traced, except its checks of rows; here stands what cannot be."""

from __future__ import annotations

from typing import Any

import numpy as np

from onnxtool.converters.tracing.converters import register_converter


@register_converter("feature_engine.transformation.yeojohnson.YeoJohnsonTransformer")
def _yeo_johnson(model: Any, rows: Any) -> Any:
    found = rows[list(model.feature_names_in_)].copy()
    for name in model.variables_:
        x, power = found[name], model.lambda_dict_[name]
        above, below = np.maximum(x, 0.0), np.minimum(x, 0.0)
        up = np.log1p(above) if power == 0 else ((above + 1) ** power - 1) / power
        down = -np.log1p(-below) if power == 2 else -((1 - below) ** (2 - power) - 1) / (2 - power)
        found[name] = np.where(x >= 0, up, down)
    return found


@register_converter("feature_engine.transformation.boxcox.BoxCoxTransformer")
def _box_cox(model: Any, rows: Any) -> Any:
    found = rows[list(model.feature_names_in_)].copy()
    for name in model.variables_:
        power = model.lambda_dict_[name]
        found[name] = np.log(found[name]) if power == 0 else np.expm1(power * np.log(found[name])) / power
    return found
