"""Procedural sound scenes with exact truth, and true questions and answers about them."""
