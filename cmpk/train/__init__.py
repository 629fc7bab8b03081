"""Training for compression: what post-training passes break, training recovers.

Plain PyTorch for any module and any training loop; it ends in an archive, and packing a trained model
changes no value. Imported only where it is used, never by loading.

What is trained in place of a tensor is a parametrization (`torch.nn.utils.parametrize`): a `Mask`, `Shared`
values, `Quantized`, `Binary` or `Ternary` weights. They compose in the order in which they are attached,
and are part of the state dict. One that knows how its tensor is stored is `Storable`.
"""

from __future__ import annotations

from cmpk.train.activations import QuantizedInput, quantize_inputs
from cmpk.train.archives import take_up
from cmpk.train.cycle import Cycle, Trial, compress_to
from cmpk.train.distillation import (
    Ensemble,
    attention_loss,
    copy_layers,
    hidden_loss,
    logit_loss,
    soft_loss,
    spaced_layers,
)
from cmpk.train.fake_quantize import Quantized, quantize
from cmpk.train.few_levels import Binary, Ternary, binarize, ternarize
from cmpk.train.hints import AttentionHint, HiddenHint, Hints
from cmpk.train.layerwise import ByLayer, Step, compress_by_layer
from cmpk.train.masks import Mask, kept_shares, prune
from cmpk.train.parametrized import attach, parametrizations_of, trained_state, weight_names
from cmpk.train.resumable import Attempt, Epoch, Result
from cmpk.train.saving import Storable, packed, save
from cmpk.train.schedules import cubic, iterative, one_shot
from cmpk.train.sharing import Shared, freeze, reassign, share
from cmpk.train.structured import prune_structure

__all__ = [
    "Attempt",
    "AttentionHint",
    "Binary",
    "ByLayer",
    "Cycle",
    "Ensemble",
    "Epoch",
    "HiddenHint",
    "Hints",
    "Mask",
    "Quantized",
    "QuantizedInput",
    "Result",
    "Shared",
    "Step",
    "Storable",
    "Ternary",
    "Trial",
    "attach",
    "attention_loss",
    "binarize",
    "compress_by_layer",
    "compress_to",
    "copy_layers",
    "cubic",
    "freeze",
    "hidden_loss",
    "iterative",
    "kept_shares",
    "logit_loss",
    "one_shot",
    "packed",
    "parametrizations_of",
    "prune",
    "prune_structure",
    "quantize",
    "quantize_inputs",
    "reassign",
    "save",
    "share",
    "soft_loss",
    "spaced_layers",
    "take_up",
    "ternarize",
    "trained_state",
    "weight_names",
]
