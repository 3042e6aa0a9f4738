"""Sliding Tile Attention: each tile of queries attends to the tiles in a window around it."""
