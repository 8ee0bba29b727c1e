"""What stands in the way of training: the spectrum of each residual block of a case."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pde import preconditioning

from .._checkpoint import Checkpoints
from .._folder import RunFolder, RunFolderError
from .run import Engine
from .schema import Case

MODEL = "the fields themselves"


@dataclass(frozen=True)
class Diagnosis:
    """Spectra by residual block, of their sum and of fitting the fields; after so many steps."""

    step: int
    spectra: dict[str, preconditioning.Spectrum]


def diagnose(
    case: Case,
    source: str,
    device: Any,
    run: Path | None = None,
    method: Literal["dense", "lanczos"] = "dense",
) -> Diagnosis:
    """Of a case as it is initialised or, given a run's folder, at its last checkpoint."""
    engine = Engine(case, source, device)
    with engine.settings():
        state = engine.fit.init(engine.pinn.params)
        if run is not None:
            with Checkpoints(RunFolder.open(run).checkpoints) as engine.checkpoints:
                if (saved := engine.checkpoints.latest()) is None:
                    raise RunFolderError(f"{run} has no checkpoint")
                state = engine.restored(saved, state)
        pinn = engine.pinn
        spectra = preconditioning.spectrum(
            pinn.residuals, state.params, state.points, method=method
        )
        own = preconditioning.spectrum(
            preconditioning.model(pinn), state.params, state.points, method=method
        )
        spectra |= {MODEL: own[preconditioning.ALL]}
        return Diagnosis(int(state.step), spectra)
