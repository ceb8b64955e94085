"""The CUDA library: built by a command where nvcc is, refused in clear words where it or the library is missing."""

from __future__ import annotations

import shutil
import sys

import pytest
import torch

from gansegctl import kernels
from gansegctl.kernels import backend, build, upsample_concat_cuda


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """One architecture, to be quick; gpu-check builds all."""
    if not shutil.which("nvcc"):
        pytest.skip("needs nvcc")
    path = tmp_path_factory.mktemp("cuda") / "library" / "upsample_concat.so"
    assert build.main(["--out", str(path), "--arch", "90"]) == 0
    return path


def test_the_source_compiles_into_a_library_with_the_two_functions(library):
    loaded = upsample_concat_cuda.load(library)
    assert loaded.gansegctl_error(0) == b"no error"
    assert [p.name for p in library.parent.iterdir()] == [library.name]


def test_available_names_the_command_that_builds(monkeypatch, tmp_path):
    monkeypatch.setenv(build.PLACE, str(tmp_path / "missing.so"))
    monkeypatch.setattr(backend, "_gpus", lambda: 1)
    assert "python -m gansegctl.kernels.build" in backend.available()["cuda"]
    (tmp_path / "missing.so").touch()
    assert backend.available()["cuda"] is None


def test_the_library_has_a_name_of_its_own_for_every_source(monkeypatch, tmp_path):
    monkeypatch.delenv(build.PLACE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = build.library_path()
    assert before.parent == tmp_path / "gansegctl"
    changed = tmp_path / "other.cu"
    changed.write_bytes(build.SOURCE.read_bytes() + b"\n")
    monkeypatch.setattr(build, "SOURCE", changed)
    assert build.library_path() != before


def test_no_compiler_is_exit_status_3_with_a_remedy(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv("NVCC", "no-such-compiler")
    assert build.main(["--out", str(tmp_path / "x.so")]) == 3
    assert "set NVCC" in capsys.readouterr().err
    monkeypatch.delenv("NVCC")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(RuntimeError, match="no nvcc on PATH"):
        build.find_nvcc()


def test_a_compiler_that_fails_is_quoted_and_leaves_nothing(monkeypatch, capsys, tmp_path):
    compiler = tmp_path / "nvcc"
    compiler.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('no such architecture ' + sys.argv[6])\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("NVCC", str(compiler))
    assert build.main(["--out", str(tmp_path / "out" / "x.so"), "--arch", "1"]) == 1
    assert "no such architecture" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_is_no_library_is_refused(tmp_path):
    (tmp_path / "x.so").write_text("not a library")
    with pytest.raises(RuntimeError, match="does not load"):
        upsample_concat_cuda.load(tmp_path / "x.so")


def test_the_cuda_backend_is_refused_on_the_cpu_and_for_other_ops(monkeypatch, tmp_path):
    x = torch.ones(1, 1, 2, 2)
    monkeypatch.setenv(build.PLACE, str(tmp_path / "there.so"))
    (tmp_path / "there.so").touch()
    monkeypatch.setattr(backend, "_gpus", lambda: 1)
    with pytest.raises(ValueError, match="lie on cpu"):
        kernels.upsample_concat([x], (4, 4), backend="cuda")
    with pytest.raises(ValueError, match="no backward"):
        kernels.upsample_concat([x.requires_grad_()], (4, 4), backend="cuda")
    with pytest.raises(ValueError, match="upsample_concat alone"):
        kernels.upsample_sum([x.detach()], (4, 4), backend="cuda")
    with pytest.raises(ValueError, match="on a CUDA device"):
        upsample_concat_cuda.upsample_concat([x.detach()], (4, 4))
