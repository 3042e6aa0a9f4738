"""Orders in which a linear recurrence reads a canvas, and the way back."""
