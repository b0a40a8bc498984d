"""Attack, corrupt and explain any image classifier through the frequency domain.

>>> import bandwise as bw
>>> images, labels = bw.data("synthetic:test_count=20")
>>> model = bw.wrap_callable(lambda x: x.mean(axis=(2, 3)), num_classes=3)
>>> result = bw.evaluate(model, images, labels % 3, progress=False)
>>> result.total
20

Models come from `load` (networks of the library), `wrap` (any `torch.nn.Module`) and `wrap_callable` (anything). Pixels
lie in [0, 1], logits come out, normalization is inside the model. `bandwise.torch` has the published methods for
training loops.
"""

from ._analyze import (
    Analysis,
    BandAccuracy,
    Figure,
    GradientSpectrum,
    HeatMap,
    Mask,
    PerturbationSpectrum,
    band_accuracy,
    fourier_mask,
    gradient_spectrum,
    heatmap,
    perturbation_spectrum,
    report,
)
from ._arrays import Layout, data
from ._bandwise import __version__
from ._corrupt import corrupt, corruptions
from ._evaluate import (
    CorruptionEvaluation,
    Evaluation,
    Records,
    attack,
    attacks,
    evaluate,
    evaluate_corruptions,
)
from ._models import Model, Network, load, wrap, wrap_callable

__all__ = [
    "Analysis",
    "BandAccuracy",
    "CorruptionEvaluation",
    "Evaluation",
    "Figure",
    "GradientSpectrum",
    "HeatMap",
    "Layout",
    "Mask",
    "Model",
    "Network",
    "PerturbationSpectrum",
    "Records",
    "__version__",
    "attack",
    "attacks",
    "band_accuracy",
    "corrupt",
    "corruptions",
    "data",
    "evaluate",
    "evaluate_corruptions",
    "fourier_mask",
    "gradient_spectrum",
    "heatmap",
    "load",
    "perturbation_spectrum",
    "report",
    "wrap",
    "wrap_callable",
]
