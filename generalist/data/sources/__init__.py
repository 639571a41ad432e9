"""Each file here is one source of images, found by its name."""
