"""Compiles upsample_concat.cu ahead of use: python -m gansegctl.kernels.build. Importing the kernels never builds.

The library goes to $GANSEGCTL_CUDA_LIBRARY, else to a cache folder under a name that holds the digest of the source
and of the options, so that a library of another version is never loaded.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).with_name("upsample_concat.cu")
ARCHITECTURES = ("80", "90")
OPTIONS = ("-O3", "-std=c++17", "-shared", "-Xcompiler", "-fPIC")
PLACE = "GANSEGCTL_CUDA_LIBRARY"


def library_path() -> Path:
    """Where the library is looked for."""
    if os.environ.get(PLACE):
        return Path(os.environ[PLACE])
    digest = hashlib.sha256(SOURCE.read_bytes() + " ".join(OPTIONS).encode()).hexdigest()[:16]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "gansegctl" / f"upsample_concat-{digest}.so"


def why_not_built() -> str | None:
    """None when the library is there, else what to do."""
    if library_path().is_file():
        return None
    return f"{library_path()} is not there; build it with: python -m gansegctl.kernels.build"


def find_nvcc() -> str:
    """The CUDA compiler: $NVCC, PATH, or $CUDA_HOME/bin. RuntimeError where there is none."""
    named = os.environ.get("NVCC")
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    found = shutil.which(named) if named else shutil.which("nvcc") or shutil.which("nvcc", path=str(Path(home) / "bin"))
    if not found:
        asked = f"NVCC={named}, which is not a program" if named else "no nvcc on PATH or in CUDA_HOME/bin"
        raise RuntimeError(f"got {asked}; wanted CUDA's compiler, 11.8 or newer; set NVCC or use --backend triton")
    return found


def build(target: Path | None = None, architectures: Sequence[str] = ARCHITECTURES) -> Path:
    """Compile into `target` (default: `library_path`) and return it. RuntimeError with nvcc's words when it fails."""
    target = Path(target) if target else library_path()
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in architectures]
    codes.append(f"-gencode=arch=compute_{architectures[-1]},code=compute_{architectures[-1]}")  # for newer devices
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        part = Path(folder) / target.name
        command = [find_nvcc(), *OPTIONS, *codes, "-o", str(part), str(SOURCE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            words = (done.stderr or done.stdout).strip()[-2000:]
            raise RuntimeError(f"got exit status {done.returncode} from {' '.join(command)}:\n{words}")
        os.replace(part, target)  # whole or not at all
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit status 1 when the compiler fails, 3 when there is none."""
    parser = argparse.ArgumentParser(prog="python -m gansegctl.kernels.build", description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--out", type=Path, help=f"library to write (default: {PLACE} or the cache folder)")
    parser.add_argument("--arch", default=",".join(ARCHITECTURES), help="compute capabilities (default: %(default)s)")
    options = parser.parse_args(arguments)
    try:
        find_nvcc()
    except RuntimeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 3
    try:
        print(build(options.out, options.arch.split(",")))
    except RuntimeError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
