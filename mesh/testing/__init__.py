"""What a user's tests need: `mesh.testing.mesh`, and a judge of what callers were told.

Beside it, what this project tests and measures itself with: `mesh.testing.sim` simulates whole meshes.
"""

from mesh.testing.blocking import BlockingMesh
from mesh.testing.clock import ManualClock
from mesh.testing.history import History
from mesh.testing.hosted import InProcessMesh
from mesh.testing.linearizability import check as check_linearizability
from mesh.testing.opening import mesh
from mesh.testing.recorder import BlockingRecorder, Recorder

__all__ = [
    "BlockingMesh",
    "BlockingRecorder",
    "History",
    "InProcessMesh",
    "ManualClock",
    "Recorder",
    "check_linearizability",
    "mesh",
]
