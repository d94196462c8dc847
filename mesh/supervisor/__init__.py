"""A supervisor without Ray: the brain of mesh.core.supervision with sockets, a store and a clock round it.

shell       the supervisor itself: who is heard, and what becomes of it
links       who is connected, and what they are sent
peers       the links to the other supervisors
candidate   how it comes to lead, and how its lead ends
leader      what a leader does: the brain's events and effects, its store calls and starts
watch       what a leader sees: beats and reports for the detector, whose orders it carries out
questions   what tools ask
journal     what has happened
settings    where it stands
"""

from __future__ import annotations

from mesh.supervisor.settings import Launcher, SupervisorSettings
from mesh.supervisor.shell import Supervisor

__all__ = ["Launcher", "Supervisor", "SupervisorSettings"]
