"""Models whose weights stay compressed in memory while they run.

`cmpk.torch.load_model` makes them, with ``resident="packed"`` (entropy coded, as in the file) or
``"quantized"`` (codes and scales). Their layers are of subclasses of what they were, and their forward is
bit-identical to that of the dense model; but for ``activations="int8"``, which trades bits for speed.

They stay on the device that they are loaded to. On a CUDA device with Triton, streams are kept and decoded
there (`cmpk.nn.device_weights`); on others than the CPU, linear layers with 8-bit codes keep these there and
torch dequantizes them. What no kernel decodes, and what there are no kernels for, is kept and decoded on the
CPU, and copied for each forward; layers say where their weights are. Either way these are those of the dense
model to the bit.

``torch.compile`` works: weights are decoded between the graphs that it makes, so that there is a graph for
each layer and ``fullgraph=True`` is refused by torch. As for any model, its fused operations round otherwise.
"""

from __future__ import annotations

import torch

from cmpk.nn.integer import IntegerLinear
from cmpk.nn.layers import CompressedEmbedding, CompressedLayer
from cmpk.nn.loading import RESIDENT, load

__all__ = ["RESIDENT", "CompressedEmbedding", "CompressedLayer", "IntegerLinear", "close", "load"]


def close(model: torch.nn.Module) -> None:
    """Let go of the compressed weights of a model, and of the thread that decodes them ahead.

    Running the model then raises a `CmpkError`. A model that nothing refers to is closed by itself.
    """
    for module in model.modules():
        if isinstance(module, CompressedLayer):
            module._compressed_weights.close()
