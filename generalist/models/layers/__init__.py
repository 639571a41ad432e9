"""What several architectures are made of; a folder, because each file of `models` is an architecture."""
