"""AdamW (I. Loshchilov, F. Hutter, "Decoupled weight decay regularization", 2019) on all parameters as one vector.

``torch.optim`` computes the same; importing it takes a second and 70 MiB (it brings torch's compiler along), and a step over many
small parameters takes longer than one over a long vector.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

_BETA_1, _BETA_2, _EPSILON = 0.9, 0.999, 1e-8


class AdamW:
    """``decaying`` parameters lose ``decay`` times the learning rate of themselves at each step, ``others`` do not.

    The parameters become views of one vector.
    """

    def __init__(self, decaying: Sequence[nn.Parameter], others: Sequence[nn.Parameter], decay: float) -> None:
        self._parameters = [*decaying, *others]
        self._decay = decay
        self._values = torch.cat([p.detach().flatten() for p in self._parameters])
        self._decaying = self._values[: sum(p.numel() for p in decaying)]
        start = 0
        for parameter in self._parameters:
            end = start + parameter.numel()
            parameter.data = self._values[start:end].view(parameter.shape)
            start = end
        self._mean, self._square, self._steps = torch.zeros_like(self._values), torch.zeros_like(self._values), 0

    @torch.no_grad()
    def step(self, loss: Tensor, rate: float) -> None:
        """Go one step down the gradient of ``loss``."""
        with torch.enable_grad():
            gradients = torch.autograd.grad(loss, self._parameters)
        gradient = torch.cat([g.flatten() for g in gradients])
        self._steps += 1
        self._decaying.mul_(1 - rate * self._decay)
        self._mean.lerp_(gradient, 1 - _BETA_1)
        self._square.mul_(_BETA_2).addcmul_(gradient, gradient, value=1 - _BETA_2)
        size = self._square.sqrt().div_(math.sqrt(1 - _BETA_2**self._steps)).add_(_EPSILON)
        self._values.addcdiv_(self._mean, size, value=-rate / (1 - _BETA_1**self._steps))

    def state_dict(self) -> dict[str, Tensor | int]:
        """All that must be kept to go on, the parameters included."""
        return {"values": self._values, "mean": self._mean, "square": self._square, "steps": self._steps}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Be as another one was whose ``state_dict`` this is."""
        self._values.copy_(state["values"])
        self._mean.copy_(state["mean"])
        self._square.copy_(state["square"])
        self._steps = int(state["steps"])
