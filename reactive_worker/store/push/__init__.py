"""Push: how a worker hears of rows, and how it knows that it does."""
