"""Checks before tuning: what spoils it, looked for in data, labels, splits, prompts and set-up."""
