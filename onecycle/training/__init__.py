"""Learning: schedule, optimizers, state and the loop that yields after each step."""
