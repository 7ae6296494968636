"""What web frameworks have in common: the context of a request, and the protocols that carry it."""
