"""Sliding Tile Attention on Hopper, in Gluon: the tensor memory accelerator and warpgroups."""
