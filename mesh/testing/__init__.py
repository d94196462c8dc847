"""What a user's tests need: `mesh.testing.mesh`. Beside it, what this project measures itself with."""

from mesh.testing.blocking import BlockingMesh
from mesh.testing.clock import ManualClock
from mesh.testing.hosted import InProcessMesh
from mesh.testing.opening import mesh

__all__ = ["BlockingMesh", "InProcessMesh", "ManualClock", "mesh"]
