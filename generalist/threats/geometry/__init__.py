"""What norms share: how the pixel range cuts hyperplanes, and the squares of Square Attack."""
