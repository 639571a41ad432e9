"""What raw outputs mean; each file here is one head, found by its name."""
