"""Rows of a run turned into tables, figures and pages."""
