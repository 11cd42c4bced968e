"""The three studies, wood, carpet and camouflage, from raw data to their reports, and what they say together."""
