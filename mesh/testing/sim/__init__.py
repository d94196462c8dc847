"""Whole meshes in one thread, under virtual time and seeded faults: the real code over a simulated world."""

from mesh.testing.sim.loop import SimLoop, Stuck
from mesh.testing.sim.network import Network
from mesh.testing.sim.process import Host, Process, SimClock
from mesh.testing.sim.simulation import Happened, Simulation, Trace

__all__ = [
    "Happened",
    "Host",
    "Network",
    "Process",
    "SimClock",
    "SimLoop",
    "Simulation",
    "Stuck",
    "Trace",
]
