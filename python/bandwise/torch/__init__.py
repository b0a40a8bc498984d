"""The published methods for training loops of PyTorch, equal to the library's own.

=============================  ==========================================================================
:class:`FPCM`                  frequency preference control module (Bu et al., ICCV 2023)
:class:`DctConv2d`             convolution whose filters are cosine coefficients (Lukasik et al., TMLR 2023)
:class:`SignalDctConv2d`       the same function, by basis responses and a 1x1 convolution
:func:`decompose`              puts them in place of a module's convolutions
:func:`filter_frequency_penalty`  norms of high-frequency coefficients, of plain convolutions too
:func:`jafr`                   low-frequency bias of the input gradient (Chan et al., IJCAI 2022)
=============================  ==========================================================================
"""

from ._dct import DctConv2d, SignalDctConv2d, dct_basis, decompose, recompose
from ._filter_frequency import filter_frequency_penalty
from ._fpcm import FPCM, set_progress
from ._jafr import frequency_bias, jafr, mean_amplitudes

__all__ = [
    "FPCM",
    "DctConv2d",
    "SignalDctConv2d",
    "dct_basis",
    "decompose",
    "filter_frequency_penalty",
    "frequency_bias",
    "jafr",
    "mean_amplitudes",
    "recompose",
    "set_progress",
]
