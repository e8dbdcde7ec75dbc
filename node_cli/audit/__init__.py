"""`node-audit`: are these gradients right, and why not? One file per problem, and what they share."""
