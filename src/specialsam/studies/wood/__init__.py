"""The wood study: clusters of textures, mosaics of graded difficulty, and what made the published model collapse."""
