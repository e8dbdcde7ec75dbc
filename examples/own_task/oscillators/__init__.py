"""A dataset, a model, a vector field and a task of one's own: damped oscillators, observed now and then."""
