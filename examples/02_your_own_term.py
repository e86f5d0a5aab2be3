"""Your own term: add a wish of yours to the energy that is minimised.

A term is a function that returns residuals, in standard deviations, and their Jacobian; the solver adds half their
square to the energy. This one wishes for a symmetric face: the same expression on the left and on the right.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from configs import load_preset
from flame.camera import Intrinsics
from flame.surface import PosedPoints
from tracker.clip import load_toolkit
from tracker.frames import open_source
from tracker.scout import Glimpse, initial_state, solve_person
from tracker.solver import fit_frame
from tracker.state import FIRST_EXPRESSION, FaceState, View
from tracker.terms import Term, whiten


def symmetric_face(names: tuple[str, ...], sigma: float) -> Term:
    """Return the term: left minus right coefficient of every pair of expressions, with this standard deviation."""
    left = [names.index(name) for name in names if name.endswith("Left")]
    right = [names.index(names[index].removesuffix("Left") + "Right") for index in left]

    def term(_posed: PosedPoints, state: FaceState, _view: View) -> tuple[np.ndarray, np.ndarray]:
        by_state = np.zeros((len(left), state.num_parameters))
        by_state[:, FIRST_EXPRESSION:] = (np.eye(len(names))[left] - np.eye(len(names))[right]) / sigma
        return (state.expression[left] - state.expression[right]) / sigma, by_state

    return term


def main() -> None:
    """Fit the first frame without and with the term."""
    parser = argparse.ArgumentParser(description="Fit one frame with an energy term of one's own.")
    parser.add_argument("video", nargs="?", default=Path(__file__).parent / "sample.mp4", type=Path)
    config = load_preset("default")
    toolkit = load_toolkit("commons", "mediapipe", config)
    with open_source(parser.parse_args().video, max_frames=1) as source:
        image = next(iter(source)).image
    evidence = toolkit.prior.search(image)[0]
    view = View.of(Intrinsics.from_fov(45.0, image.shape[1], image.shape[0]))
    person = solve_person(toolkit.model, [Glimpse(evidence, 0.0, view)])
    rig = toolkit.model.rig.with_shape(person.shape)
    problem = (rig, whiten(evidence, config.solver.sigma_scale), initial_state(rig, evidence, view))
    symmetric = symmetric_face(toolkit.head.expression_names or (), sigma=0.02)
    for label, terms in (("as seen", ()), ("symmetric", (symmetric,))):
        fit = fit_frame(*problem, toolkit.model.prior, view, config.solver, 40, extra_terms=terms)
        posed = rig.pose(fit.state.joint_angles, fit.state.expression)
        difference = 0.02 * np.abs(symmetric(posed, fit.state, view)[0]).mean()
        print(f"{label:10s} left-right difference {difference:.3f}, residual {np.median(fit.residual_px):.2f} px")


if __name__ == "__main__":
    main()
