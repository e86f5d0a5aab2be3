"""Labelled pictures of random heads: who, where, in what light, with what in front, and what each pixel shows."""
