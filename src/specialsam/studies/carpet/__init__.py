"""The carpet study: synthetic defects for training, real ones for the test, and how real the synthetic ones are."""
