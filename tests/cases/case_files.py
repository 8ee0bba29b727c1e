"""Case files of the tests' own."""

from pathlib import Path


def written(folder: Path, text: str) -> Path:
    path = folder / "case.yaml"
    path.write_text(text)
    return path
