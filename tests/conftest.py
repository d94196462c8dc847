"""What every test folder shares: hypothesis' profiles and the event loop."""

import os
import signal

import pytest
from hypothesis import HealthCheck, settings

# No deadline: a shared machine stalls for longer than any bound worth setting, and
# pytest-timeout ends what hangs.
_common = settings(deadline=None, print_blob=True)
settings.register_profile("dev", _common, max_examples=50)
settings.register_profile("ci", _common, max_examples=200)
settings.register_profile(
    "soak", _common, max_examples=20_000, suppress_health_check=list(HealthCheck)
)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if "CI" in os.environ else "dev")
)

# A suite that is started in the background of a script inherits "ignore SIGINT", and so would every
# process that a test means to interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Async tests run on the loop that the mesh runs on."""
    return ("asyncio", {"use_uvloop": True})
