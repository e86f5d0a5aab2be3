"""Build the commons head, the parametric head that ships with the project (``python -m flame.commons.build``)."""
