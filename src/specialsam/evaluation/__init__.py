"""From models, prompts and truth to tidy rows, and from rows to numbers with their uncertainty."""
