"""Under `filterwarnings = error`, warnings that only a GPU gives pass in GPU tests, by words."""

import warnings
from pathlib import Path

import pytest

from tests import conftest

torch = pytest.importorskip("torch")


@pytest.mark.gpu
@pytest.mark.parametrize("message", conftest.ONLY_ON_A_GPU)
def test_a_gpu_test_may_hear_them(message):
    warnings.warn(message + "and more.", UserWarning, stacklevel=1)
    for other in ("Something else", message[:20]):
        with pytest.raises(UserWarning):
            warnings.warn(other, UserWarning, stacklevel=1)
    with pytest.raises(RuntimeWarning):
        warnings.warn(message, RuntimeWarning, stacklevel=1)


@pytest.mark.parametrize("message", conftest.ONLY_ON_A_GPU)
def test_any_other_test_may_not(message):
    with pytest.raises(UserWarning):
        warnings.warn(message, UserWarning, stacklevel=1)


@pytest.mark.parametrize("message", conftest.ONLY_ON_A_GPU[:-1])
def test_torch_has_these_words(message):
    """Where its CUDA libraries are installed; a CPU build has none."""
    library = Path(torch.__file__).parent / "lib" / "libtorch_cuda.so"
    if not library.is_file():
        pytest.skip("torch without CUDA")
    import mmap

    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        assert data.find(message.encode()) >= 0
