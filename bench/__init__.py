"""Time, memory and scaling of ENA against its rivals: the harness of `ena-bench`."""
