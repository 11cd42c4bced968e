"""The camouflage study: animals that hide."""
