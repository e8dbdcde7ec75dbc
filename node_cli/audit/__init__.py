"""`node-audit`: are these gradients right, and why not? One file a problem, and what the problems share."""
