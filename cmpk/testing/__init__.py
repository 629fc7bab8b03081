"""The test kit for plugins: Hypothesis strategies, and checks of all that an offer must do.

Needs Hypothesis (``pip install 'cmpk[test]'``). A plugin's tests call it so::

    from cmpk.testing import check_codec

    def test_lz4_is_a_codec():
        check_codec(Lz4(), boundaries=[1 << 18])
"""

from cmpk.testing.codecs import check_codec
from cmpk.testing.encodings import check_encoding
from cmpk.testing.kernels import check_kernels
from cmpk.testing.strategies import byte_arrays, damaged, tensor_parts, tensor_specs

__all__ = [
    "byte_arrays",
    "check_codec",
    "check_encoding",
    "check_kernels",
    "damaged",
    "tensor_parts",
    "tensor_specs",
]
