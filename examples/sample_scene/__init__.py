"""The scene of the sample clip: a photograph on the surface of the head that was fitted to it, made to move."""
