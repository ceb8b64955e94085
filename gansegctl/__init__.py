"""gansegctl: a trained StyleGAN in, a labelled segmentation dataset and a stand-alone segmenter out.

Names of the public Python API, which docs/python.md shows at work:

open_generator(name_or_file)   a StyleGAN of any family that is read, or the preset of that name
latents_of_seeds(g, seeds)     the latents that seeds stand for
sample(generator, seeds)       images of seeds, and with a segmenter their masks
get_method(name)               a method by the name that --method takes; `fit` makes a segmenter
open_segmenter(file)           a fitted segmenter, which reads a generator's activations
open_student(file)             a network that segments images without the generator
open_dataset(folder)           images and masks of a dataset, as a torch Dataset
FeaturePyramid                 a generator's activations, standing for the hypercolumn that is never built
LabelMap, Exemplar             classes; an annotated image

Nothing is imported before it is used, so that `gansegctl --help` answers at once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from gansegctl.version import __version__

if TYPE_CHECKING:
    from gansegctl.contracts import Exemplar as Exemplar
    from gansegctl.features.pyramid import FeaturePyramid as FeaturePyramid
    from gansegctl.labels import LabelMap as LabelMap
    from gansegctl.methods import get as get_method
    from gansegctl.methods import load as open_segmenter
    from gansegctl.pipeline.inputs.generators import latents_of_seeds as latents_of_seeds
    from gansegctl.pipeline.inputs.generators import open_generator as open_generator
    from gansegctl.pipeline.labelling import sample as sample
    from gansegctl.store.dataset import open_dataset as open_dataset
    from gansegctl.students.student import load_student as open_student


__all__ = [
    "open_generator",
    "latents_of_seeds",
    "sample",
    "get_method",
    "open_segmenter",
    "open_student",
    "open_dataset",
    "FeaturePyramid",
    "LabelMap",
    "Exemplar",
    "__version__",
]

_WHERE = {
    "open_generator": "gansegctl.pipeline.inputs.generators:open_generator",
    "latents_of_seeds": "gansegctl.pipeline.inputs.generators:latents_of_seeds",
    "sample": "gansegctl.pipeline.labelling:sample",
    "get_method": "gansegctl.methods:get",
    "open_segmenter": "gansegctl.methods:load",
    "open_student": "gansegctl.students.student:load_student",
    "open_dataset": "gansegctl.store.dataset:open_dataset",
    "FeaturePyramid": "gansegctl.features.pyramid:FeaturePyramid",
    "LabelMap": "gansegctl.labels:LabelMap",
    "Exemplar": "gansegctl.contracts:Exemplar",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'gansegctl' has no attribute {name!r}; it offers {', '.join(__all__)}")
    module, attribute = _WHERE[name].split(":")
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
