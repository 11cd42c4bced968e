"""Before tuning: the learning curve of pilot runs, the factors that decide, and GO, NO-GO or UNSURE."""
