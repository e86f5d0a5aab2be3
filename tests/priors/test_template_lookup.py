"""Texture coordinates of places on the template."""

import numpy as np
import pytest

from flame.closest_point import ClosestPoint
from flame.loading import load_head
from priors.dense_surface import DenseSurface
from priors.template_lookup import TemplateLookup


@pytest.fixture(scope="module")
def commons() -> tuple[TemplateLookup, np.ndarray, np.ndarray, DenseSurface]:
    head = load_head("commons")
    return TemplateLookup.of(head), head.template.numpy().astype(np.float64), head.faces.numpy(), DenseSurface.of(head)


def test_places_on_the_skin_get_the_texture_of_the_nearest_triangle(commons) -> None:
    lookup, template, faces, surface = commons
    random = np.random.default_rng(0)
    triangles = random.choice(np.flatnonzero(~surface.is_excluded), 3000)
    weights = random.dirichlet((1, 1, 1), 3000)
    places = np.einsum("nk,nkc->nc", weights, template[faces[triangles]])
    true = np.einsum("nk,nkc->nc", weights, surface.uv[surface.uv_faces[triangles]])
    error = np.linalg.norm(lookup(places.astype(np.float32)) - true, axis=1)
    # A millimetre on the face is about 0.004.
    assert np.quantile(error, 0.9) < 1e-3 and np.quantile(error, 0.98) < 5e-3


def test_places_off_the_skin_agree_with_an_exact_search(commons) -> None:
    lookup, template, faces, surface = commons
    random = np.random.default_rng(1)
    face = np.flatnonzero(~surface.is_excluded & (template[faces][:, :, 2].min(axis=1) > 0.02))
    places = template[faces[random.choice(face, 400)]].mean(axis=1) + random.normal(0, 1e-3, (400, 3))
    found = ClosestPoint(template, faces, np.flatnonzero(~surface.is_excluded))(places)
    true = np.einsum("nk,nkc->nc", found.barycentric, surface.uv[surface.uv_faces[found.triangle]])
    error = np.linalg.norm(lookup(places.astype(np.float32)) - true, axis=1)
    assert np.quantile(error, 0.9) < 2.5e-3


def test_places_far_away_have_no_texture(commons) -> None:
    lookup = commons[0]
    assert np.isnan(lookup(np.array(((1.0, 0, 0), (0, 0, 0), (0, -5, 0)), np.float32))).all()
