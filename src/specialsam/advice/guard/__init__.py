"""Never hand on a worse model: mixtures of base and tuned weights, and what must not be forgotten."""
