"""k-means on the pixels of an image over its variants, by torch or by faiss."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from gansegctl.errors import UsageError
from gansegctl.features.kmeans_points import parallel_kmeans


def cluster(
    x: Tensor, columns: Tensor, k: int, iterations: int, fitted: int, clusterer: str, stream: torch.Generator
) -> Tensor:
    """Clusters of the rows of x [P,D], once with each set of columns [R,D]: int64 [R,P].

    fitted: rows of a cluster that its centroids are fitted on; 0 = all. clusterer: torch | faiss.
    """
    options = None if clusterer == "torch" else faiss_options(x.device)
    if options is None:
        return parallel_kmeans(x, columns, k, iterations, stream, sample=k * fitted or None)
    found, most = [], min(k, len(x))  # faiss refuses more clusters than pixels, which a small box has
    for keep in columns:
        part = x[:, keep].float().cpu().contiguous().numpy()
        points = {"max_points_per_centroid": fitted or len(part), "min_points_per_centroid": 1}
        seed = int(torch.randint(2**31 - 1, (1,), generator=stream))
        run = faiss_module().Kmeans(part.shape[1], most, niter=iterations, seed=seed, **points, **options)
        run.train(part)
        found.append(torch.from_numpy(run.index.search(part, 1)[1][:, 0]))
    return torch.stack(found).to(x.device)


def faiss_options(device: torch.device) -> dict[str, bool] | None:
    """Options of faiss's k-means for images on this device; None where torch's is quicker: on a GPU that this faiss
    was not built for, which would have it work on the CPU."""
    if device.type != "cuda":
        return {}
    return {"gpu": True} if getattr(faiss_module(), "get_num_gpus", int)() > 0 else None


def faiss_module() -> ModuleType:
    """faiss itself. UsageError where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise UsageError(
            "got clusterer faiss, which is not installed", wanted="faiss", remedy="pip install 'gansegctl[cpu]'"
        ) from None
    return faiss
