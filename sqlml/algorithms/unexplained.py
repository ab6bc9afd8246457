"""For predictors whose answers have no sum of contributions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlml.errors import NotSupportedError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Unexplained:
    """What a predictor answers whose algorithm says ``explains = False``."""

    gpu_memory = 0

    def contributions(self, x: NDArray[np.float32]) -> NDArray[Any]:
        """There are none: ``NotSupportedError``."""
        raise NotSupportedError("this model's answers cannot be split into contributions of the features")

    def importance(self) -> NDArray[np.float64]:
        """There is none: ``NotSupportedError``."""
        raise NotSupportedError("this model does not tell how much each feature matters")
