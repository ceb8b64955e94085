"""`gansegctl doctor`"""

from __future__ import annotations

import click

from gansegctl.cli import console, options


@click.command()
@options.json_flag
def command(as_json: bool) -> None:
    """Show what this machine can run: versions, devices, kernel backends, optional packages and free disk space."""
    import platform
    import shutil
    from importlib.metadata import PackageNotFoundError, version

    import torch

    from gansegctl.kernels.backend import available
    from gansegctl.version import __version__

    def installed(name: str) -> str:
        try:
            return version(name)
        except PackageNotFoundError:
            return "not installed"

    names = ("numpy", "h5py", "safetensors", "isal", "triton", "faiss-cpu")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    console.emit(
        {
            "gansegctl": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": torch.get_num_threads(),
            "gpus": gpus or "none",
            "backends": {k: why or "ready" for k, why in available().items()},
            "packages": {n: installed(n) for n in names},
            "nvcc": shutil.which("nvcc") or "not found",
            "free_disk_bytes": shutil.disk_usage(".").free,
        },
        as_json,
    )
