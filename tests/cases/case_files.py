"""Case files of the tests' own, and what is said of those that are refused."""

from pathlib import Path

import pytest

import cases


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "case.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def complaint(path: Path, *sets: str) -> str:
    with pytest.raises(cases.CaseError) as caught:
        cases.load(path, sets)
    return str(caught.value)
