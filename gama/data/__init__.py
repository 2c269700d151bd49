"""Clips, questions and answers on their way to a batch: manifests, features, datasets, collators."""
