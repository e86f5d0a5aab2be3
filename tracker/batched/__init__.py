"""Many frames solved at once in torch: the streaming solver's energy, steps and stop reasons.

For a GPU. On a CPU it gives the same results, several times slower than ``tracker.solver.fit_frame`` frame by frame.
"""

from tracker.batched.rig import BatchedRig
from tracker.batched.solver import BatchedFit, fit_frames, minimize_frames

__all__ = ["BatchedFit", "BatchedRig", "fit_frames", "minimize_frames"]
