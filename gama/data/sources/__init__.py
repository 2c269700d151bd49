"""Published data sets as manifests: one file each, read from the folders and tables in which they are given out."""
