"""Lists of names that flags and settings choose from, each written once. Imports nothing, so that `--help` is fast."""

METHODS = (
    "oneshot",
    "contrastive",
    "labels4free",
    "repurpose",
    "linear",
    "datasetgan",
    "segment_in_style",
    "stylemix",
)
"""How masks are made; `methods.METHODS` says where each lies."""

HEADS = ("cnn-s", "cnn-m", "cnn-l", "mlp", "official")
"""Networks of `repurpose`."""

PROFILES = ("fixed", "release")
"""Of a method: the algorithm as meant, or as the authors' code runs."""

SELECTIONS = ("k-medoids", "spread", "uncertainty", "random")
"""How the exemplars of a dataset are chosen."""

NOISE_MODES = ("const", "seed", "none")
"""const: the stored maps, for all samples; seed: drawn from the sample's own seed; none: left out."""

PRECISIONS = ("fp32", "fp16", "bf16")
"""Of a generator's largest blocks."""

GENERATOR_TRAINING_PRECISIONS = ("fp32", "bf16")

STUDENT_PRECISIONS = ("fp32", "bf16", "fp64")

CODECS = ("deflate", "none", "delta", "zstd")
"""How shards are packed; any HDF5 reader opens deflate and none."""

ARCHITECTURES = ("unet", "deeplabv3")
"""Networks of a student."""

VARIATIONS = ("full", "light", "none")
"""Augmentations of a student's training."""

AUGMENTATIONS = ("none", "diff", "ada")
"""Images that the discriminator of `train` sees: images as they are, or varied with fixed or adapted probability."""

RESOLUTIONS = ("32", "64", "128", "256")
"""Pixels a side of a generator that `train` makes."""

SPACES = ("w", "w+", "w+n")
"""Of a projection: one w for all slots, one a slot, or that and free noise."""

MEASURES = ("auto", "gradients", "discriminator", "lpips")
"""Perceptual distances of a projection."""

FORMATS = ("png", "coco", "yolo", "voc", "mmseg", "hf", "webdataset")
"""Layouts that `export` writes."""

MASK_PNGS = ("palette", "grey")
"""How `export` stores masks as PNG: indexed, or class ids as 8-bit grey."""

OUTPUTS = ("mask", "grey", "confidence", "overlay")
"""Files that `predict` writes for every image."""

BACKENDS = ("auto", "reference", "cpu", "torch", "triton", "cuda")
"""Who computes the feature path; as `kernels.backend` has them, which imports no room above it."""
