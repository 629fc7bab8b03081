"""Training for compression: what post-training passes break, training recovers.

Plain PyTorch for any module and any training loop; it ends in an archive, and packing a trained model
changes no value. Imported only where it is used, never by loading.
"""

from __future__ import annotations

__all__: list[str] = []
