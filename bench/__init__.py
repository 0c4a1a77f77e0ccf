"""Measuring: the plan of cells, the isolated worker that measures one, and the statistics.

`onnxtool.bench` is this package and, called, the function `onnxtool.bench("model.onnx")`. The import system binds a
package's name in its parent, so the function of that name would vanish as soon as anything in here is imported.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any


class _Verb(ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Measure; see `onnxtool.api.bench`."""
        from onnxtool.api import bench

        return bench(*args, **options)


sys.modules[__name__].__class__ = _Verb
