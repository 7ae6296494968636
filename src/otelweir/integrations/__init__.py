"""One line for each framework and logging library: import the module of the one you use."""
