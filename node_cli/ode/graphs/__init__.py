"""A whole solve by compiled graphs: one of a step forwards, one of a step backwards, and little around them."""
