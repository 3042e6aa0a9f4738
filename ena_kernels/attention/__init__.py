"""Full softmax attention, as the libraries compute it."""
