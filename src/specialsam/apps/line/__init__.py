"""`specialsam inspect`: cameras above a moving web, one alarm a defect, a position on the roll."""
