"""What to believe before and after tuning: checks, probes, forecasts, and a guard that never hands on a worse model."""
