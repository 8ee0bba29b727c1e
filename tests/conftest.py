"""What tests of several rooms share."""

import jax
import pytest

_compilations: list[str] = []


@pytest.fixture(scope="session")
def _listening() -> None:
    def listen(event: str, *_: object, **__: object) -> None:
        if "backend_compile" in event:
            _compilations.append(event)

    # For the whole session: older versions of JAX cannot take a listener back.
    jax.monitoring.register_event_duration_secs_listener(listen)


@pytest.fixture
def compilations(_listening: None) -> list[str]:
    """Compilations by XLA, as they happen; empty at first."""
    _compilations.clear()
    return _compilations
