"""The solves and gradients of this project against its peers, in one process, as ratios."""
