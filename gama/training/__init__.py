"""Training: recipes, stages and the loop. Importing this package loads nothing; its modules do."""
