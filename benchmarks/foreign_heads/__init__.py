"""Heads that are not the model: read, registered with the commons head, and photographed with known truth."""
